"""The table of metrics: one source for help, command and README."""

from pathlib import Path

import pytest

from toxbench.evaluation.definitions import METRICS
from toxbench.plugin.registry import Registry
from toxbench.report.metrics import metrics_table

README = Path(__file__).resolve().parents[2] / "README.md"


def test_every_metric_has_direction_range_and_definition() -> None:
    table = metrics_table()
    assert [row[0] for row in table.rows] == [row["metric"] for row in table.records]
    assert [row[0] for row in table.rows] == list(METRICS)
    for (_, direction, _, definition), metric in zip(table.rows, METRICS.values(), strict=True):
        assert direction in {"higher", "lower", "-"}
        assert metric.low < metric.high
        assert " ".join(definition.split()) == metric.definition
    ranges = {row[0]: row[2] for row in table.rows}
    assert ranges["micro_f1"] == "0 to 1"
    assert ranges["micro_mcc"] == "-1 to 1"
    assert ranges["scored_labels"] == "0 or more"


@pytest.mark.skipif(not README.is_file(), reason="the README is not beside the tests")
def test_the_readme_shows_the_metrics_as_they_are() -> None:
    command = "toxbench metrics --format github"
    _, _, rest = README.read_text(encoding="utf-8").partition(f"<!-- written by: {command} -->\n")
    shown, end, _ = rest.partition("<!-- end of metrics -->")
    assert end, "the README has lost the markers around the table of metrics"
    expected = Registry.discover().report_format("github").item.render(metrics_table())
    assert shown.strip() == expected.strip(), f"stale; put in what {command} prints"
