"""Tables of measured speed: nothing is left out that a reader must know."""

from typing import Any

from toxbench.plugin.registry import Registry
from toxbench.records import SpeedRecord, Spread
from toxbench.report.speed import speed_table, terminal_tables

EPOCH = Spread(median=2.0, low=1.0, high=4.0)


def record(**changes: Any) -> SpeedRecord:
    fields: dict[str, Any] = {
        "backbone": "bert", "by": "toxbench", "weights": "stand-in: a small one",
        "source": "stand-in", "body_parameters": 10_000_000, "device": "cpu",
        "device_name": "a processor\x1b[2J", "precision": "bf16", "threads": 2,
        "versions": {"toxbench": "1", "torch": "2", "transformers": "3"},
        "measured": "2026-01-02T00:00:00+00:00", "data": "table.csv", "batch_size": 16,
        "max_length": 128, "epochs": 3, "repeats": 3, "rows": 800, "tokens": 31_528,
        "comments_timed": 2400, "seconds_an_epoch": EPOCH, "comments_per_second": EPOCH,
        "tokens_per_second": EPOCH, "peak_operations_per_second": 8e11, "share_of_peak": EPOCH,
        "peak_memory_bytes": 2**30, "times_slower": None,
        "startup_seconds": dict.fromkeys(("import", "load", "tokenise", "build", "total"), EPOCH),
        "evaluation_comments_per_second": EPOCH,
    }  # fmt: skip
    return SpeedRecord(**(fields | changes))


def peer(**changes: Any) -> SpeedRecord:
    nothing = {"startup_seconds": None, "evaluation_comments_per_second": None}
    return record(**({"by": "notebook", "times_slower": EPOCH} | nothing | changes))


def test_the_notes_name_machine_data_and_what_is_not_as_it_seems() -> None:
    notes = "\n".join(speed_table([record(), peer(comments_timed=40)]).notes)
    assert "Measured 2026-01-02 on a processor\\x1b[2J, 2 threads; toxbench 1, torch 2" in notes
    assert "Data: table.csv; an epoch is 800 train rows" in notes
    assert "Median of 3 runs of 3 epochs" in notes
    assert "stand-in: a small one" in notes
    assert "not the checkpoint that gave the backbone its name" in notes
    assert "bert by notebook: 40 comments timed (*), from which the epoch is extrapolated" in notes
    assert "800 GFLOP/s in bf16" in notes


def test_what_is_measured_in_full_and_with_its_own_weights_has_no_such_note() -> None:
    notes = "\n".join(speed_table([record(source="hub", weights="bert@1234567")]).notes)
    assert "extrapolated" not in notes
    assert "Peers" not in notes
    assert "small model" not in notes


def test_the_terminal_shows_the_spread_and_marks_what_is_extrapolated() -> None:
    training, rest = terminal_tables([record(), peer(comments_timed=40)])
    assert [row[1] for row in training.rows] == ["toxbench", "notebook*"]
    assert training.rows[1][-1] == "2.00 [1.00, 4.00]"
    assert len(rest.rows) == 1


def test_every_format_can_write_it() -> None:
    table = speed_table([record(), peer()])
    assert table.records[0].keys() == table.records[1].keys()
    for registered in Registry.discover().formats.values():
        assert "notebook" in registered.item.render(table)
