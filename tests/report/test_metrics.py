"""The table of metrics in the help, the command and the README."""

from pathlib import Path

import pytest

from toxbench.evaluation.definitions import METRICS
from toxbench.plugin.registry import Registry
from toxbench.report.metrics import metrics_table

README = Path(__file__).resolve().parents[2] / "README.md"


def test_metric_has_direction_range_and_definition() -> None:
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


@pytest.mark.skipif(not README.is_file(), reason="no README in the parent folder")
def test_readme_has_current_metrics() -> None:
    command = "toxbench metrics --format github"
    _, _, rest = README.read_text(encoding="utf-8").partition(f"<!-- written by: {command} -->\n")
    table, end, _ = rest.partition("<!-- end of metrics -->")
    assert end, "no markers around the table of metrics in the README"
    expected = Registry.discover().report_format("github").item.render(metrics_table())
    assert table.strip() == expected.strip(), f"outdated; paste the output of {command}"
