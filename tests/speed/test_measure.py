"""The table of measured speeds and its notes."""

from typing import Any

from toxbench.plugin.registry import Registry
from toxbench.records import SpeedRecord, Spread
from toxbench.speed.measure import speed_table

EPOCH = Spread(median=2.0, low=1.0, high=4.0)


def make_record(**changes: Any) -> SpeedRecord:
    fields: dict[str, Any] = {
        "backbone": "bert", "weights": "stand-in: a small one", "source": "stand-in",
        "body_parameters": 10_000_000, "device": "cpu", "device_name": "a processor\x1b[2J",
        "precision": "bf16", "threads": 2,
        "versions": {"toxbench": "1", "torch": "2", "transformers": "3"},
        "measured_at": "2026-01-02T00:00:00+00:00", "table": "table.csv", "batch_size": 16,
        "max_length": 128, "epochs": 3, "repeats": 3, "rows": 800, "tokens": 31_528,
        "seconds_per_epoch": EPOCH, "comments_per_second": EPOCH, "tokens_per_second": EPOCH,
        "evaluation_comments_per_second": EPOCH, "peak_operations_per_second": 8e11,
        "share_of_peak": EPOCH, "peak_memory_bytes": 2**30,
    }  # fmt: skip
    return SpeedRecord(**(fields | changes))


def test_notes_have_machine_data_and_weights() -> None:
    notes = "\n".join(speed_table([make_record()]).notes)
    assert "Measured 2026-01-02 on a processor\\x1b[2J, 2 threads; toxbench 1, torch 2" in notes
    assert "Data: table.csv. An epoch is 800 train rows" in notes
    assert "Median of 3 runs of 3 epochs" in notes
    assert "stand-in: a small one" in notes
    assert "not the checkpoint that the backbone is named after" in notes
    assert "800 GFLOP/s in bf16" in notes
    assert "that of the process" in notes


def test_notes_omit_inapplicable_facts() -> None:
    hub = make_record(source="hub", weights="bert@1234567", device="cuda")
    notes = "\n".join(speed_table([hub]).notes)
    assert "small model" not in notes
    assert "that of the process" not in notes
    assert "threads" not in notes


def test_row_has_spread_of_epoch() -> None:
    table = speed_table([make_record()])
    row = dict(zip(table.headers, table.rows[0], strict=True))
    assert row["seconds/epoch"] == "2.00 [1.00, 4.00]"
    assert (row["MFU"], row["peak memory"]) == ("200%", "1024 MiB")
    assert table.records[0]["seconds_per_epoch_high"] == 4.0


def test_all_formats_write_the_table() -> None:
    table = speed_table([make_record(), make_record(backbone="electra")])
    for registered in Registry.discover().formats.values():
        assert "electra" in registered.item.render(table)
