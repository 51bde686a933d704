"""The table of metrics in the help, the command and the guides."""

from toxbench.cli.metrics import metrics_table
from toxbench.evaluation.definitions import METRICS


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
