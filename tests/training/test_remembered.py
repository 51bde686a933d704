"""What `toxbench speed` leaves for later estimates."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support import write_table

from toxbench.benchmark.expected import expected_seconds
from toxbench.benchmark.plan import make_plan
from toxbench.layers import run_settings
from toxbench.plugin.registry import Registry
from toxbench.records import RememberedSpeed
from toxbench.training.device import Device, choose_device
from toxbench.training.peak import matrix_peak
from toxbench.training.remembered import Remembered, recall, remember

DEVICE = Device(torch.device("cpu"), "fp32", "a processor")


def speed(**changes: Any) -> RememberedSpeed:
    fields: dict[str, Any] = {
        "device_name": "a processor", "precision": "fp32", "threads": 2, "version": "1",
        "measured": "2026-01-01T00:00:00+00:00", "body_parameters": 1_000_000, "batch_size": 16,
        "comments_per_second": 10.0, "share_of_peak": 0.3,
    }  # fmt: skip
    return RememberedSpeed(**(fields | changes))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOXBENCH_CACHE", str(tmp_path))
    return tmp_path / "speed.json"


def test_what_is_remembered_is_recalled_and_replaced() -> None:
    assert recall() == Remembered()
    remember((speed(), speed(threads=4)))
    remember((speed(share_of_peak=0.5),))
    assert recall() == Remembered((speed(share_of_peak=0.5), speed(threads=4)))


@pytest.mark.parametrize("content", ["", "{]", "[]", '{"speeds": [{}]}', '{"speeds": 1, "x": 2}'])
def test_a_damaged_file_is_not_used_said_so_and_written_anew(cache: Path, content: str) -> None:
    cache.write_text(content, encoding="utf-8")
    found = recall()
    assert found.speeds == ()
    assert found.problem is not None
    assert "it is damaged" in found.problem
    assert "\n" not in found.problem
    remember((speed(),))
    assert recall() == Remembered((speed(),))


def test_a_file_that_cannot_be_read_is_said(cache: Path) -> None:
    cache.mkdir()
    assert "is not used" in (recall().problem or "")


def test_only_the_same_device_precision_and_threads_count() -> None:
    known = Remembered((speed(),))
    assert known.share_of_peak(DEVICE, 2, 1_000_000, 16) == 0.3
    assert known.share_of_peak(DEVICE, 1, 1_000_000, 16) is None
    other = Device(DEVICE.torch, "bf16", DEVICE.name)
    assert known.share_of_peak(other, 2, 1_000_000, 16) is None
    other = Device(DEVICE.torch, "fp32", "another one")
    assert known.share_of_peak(other, 2, 1_000_000, 16) is None


def test_the_most_similar_training_counts_and_a_very_different_one_never() -> None:
    known = Remembered(
        (speed(body_parameters=3_000_000), speed(share_of_peak=0.4),
         speed(batch_size=1, share_of_peak=0.1))
    )  # fmt: skip
    assert known.share_of_peak(DEVICE, 2, 900_000, 16) == 0.4
    assert known.share_of_peak(DEVICE, 2, 900_000, 2) == 0.1
    assert known.share_of_peak(DEVICE, 2, 5_000_000, 16) == 0.3
    assert known.share_of_peak(DEVICE, 2, 50_000_000, 16) is None


def test_the_expected_time_is_that_of_the_measured_share(
    checkpoint: Path, table: Path, tmp_path: Path
) -> None:
    flags = {
        "data": table, "backbones": ("bert",), "baselines": (), "results": tmp_path / "results",
        "weights": (f"bert={checkpoint}",), "device": "cpu", "train": {"precision": "fp32"},
    }  # fmt: skip
    plan = make_plan(run_settings({}, flags), Registry.discover())
    same = {
        "device_name": choose_device("cpu", "fp32").name, "threads": torch.get_num_threads(),
        "body_parameters": 5_000,
    }  # fmt: skip
    guessed = expected_seconds(plan, Remembered(), 1)
    slow = expected_seconds(plan, Remembered((speed(**same, share_of_peak=1e-9),)), 1)
    assert guessed is not None
    assert slow is not None
    assert slow > 100 * guessed


def test_rows_count_where_nothing_is_trained(tmp_path: Path) -> None:
    def expected(rows: int) -> float:
        flags = {
            "data": write_table(tmp_path / f"{rows}.csv", rows), "backbones": (), "device": "cpu",
            "baselines": ("always-negative",), "results": tmp_path / "results",
        }  # fmt: skip
        plan = make_plan(run_settings({}, flags), Registry.discover())
        return expected_seconds(plan, Remembered(), 1) or 0.0

    assert expected(20_000) > expected(60) + 4


def test_a_peak_is_a_speed_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    assert matrix_peak(choose_device("cpu", "fp32")) > 1e6
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.faults(38)
def test_the_file_of_a_newer_toxbench_is_not_used_and_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOXBENCH_CACHE", str(tmp_path))
    newer = '{"schema_version": 2, "speeds": [], "more": 1}'
    (tmp_path / "speed.json").write_text(newer, encoding="utf-8")
    assert recall().problem is not None
    assert "newer toxbench" in str(recall().problem)
    remember(())
    assert (tmp_path / "speed.json").read_text(encoding="utf-8") == newer
