"""A kept leaderboard is the computed one, and never hides what happened to the cells."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from measured import Table

from toxbench.evaluation.definitions import GLOBAL, HALF
from toxbench.plugin.registry import Registry
from toxbench.ranking import build as ranking
from toxbench.ranking.build import build_leaderboard, load_leaderboard
from toxbench.ranking.cache import FILE, keep, made_of, read_kept
from toxbench.ranking.cells import load_cells
from toxbench.ranking.rows import Leaderboard, Statistic
from toxbench.records import LabelScores
from toxbench.report.labels import label_table
from toxbench.report.leaderboard import leaderboard_table
from toxbench.store.cells import CellDamagedError, CellStore
from toxbench.store.rows import write_rows

LABELS = tuple(
    LabelScores(
        label=label, support=1, threshold=0.5, precision=0.1, recall=0.7, f1=1 / 3,
        average_precision=known, roc_auc=None, prevalence=0.5, mcc=0.0,
        brier=0.25, expected_calibration_error=0.0,
    )
    for label, known in (("IsA", 0.3), ("IsB", 0.1 + 0.2), ("IsC", None), ("IsNever", None))
)  # fmt: skip
PER_LABEL = {HALF: LABELS, GLOBAL: LABELS}
FORMATS = ("plain", "github", "markdown", "latex", "html", "csv", "json")


@pytest.fixture
def store(tmp_path: Path) -> CellStore:
    """A protocol with cells of two candidates, five seeds each, and one unfinished."""
    table = Table(folds=2)
    store = CellStore(tmp_path)
    store.protocol_path.write_text(table.protocol.model_dump_json(), encoding="utf-8")
    write_rows(tmp_path, table.comments)
    for record, tensors in [
        *table.cells("a", range(5), per_label=PER_LABEL),
        *table.cells("b", range(5), skill=0.4, tuned=True, per_label=PER_LABEL),
        table.cell("c"),
    ]:
        store.write(record, tensors)
    return store


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one entry for every leaderboard that is computed, not read."""
    calls: list[str] = []

    def counted(*arguments: object) -> Leaderboard:
        calls.append("computed")
        return build_leaderboard(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ranking, "build_leaderboard", counted)
    return calls


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def test_a_second_load_computes_nothing_and_is_the_same(
    store: CellStore, computed: list[str]
) -> None:
    first = load_leaderboard(store)
    assert load_leaderboard(store) == first == build_leaderboard(*load_cells(store))
    assert computed == ["computed"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_the_same_byte_for_byte(store: CellStore, name: str) -> None:
    render = Registry.discover().report_format(name).item.render
    boards = [load_leaderboard(store), load_leaderboard(store)]
    assert (store.folder / FILE).is_file()
    for table in (leaderboard_table, label_table):
        one, other = (render(table(board)) for board in boards)
        assert one == other


def test_every_float_comes_back_to_the_last_bit(store: CellStore) -> None:
    odd = (math.nan, math.inf, -math.inf, -0.0, 5e-324, 0.1 + 0.2, 1.7976931348623157e308, 1 / 3)
    board = load_leaderboard(store)
    values = {f"value {i}": Statistic(number, None) for i, number in enumerate(odd)}
    changed = replace(board, rows=(replace(board.rows[0], values={**values, "none": None}),))
    keep(store.folder, "f" * 64, changed)
    found = read_kept(store.folder, "f" * 64)
    assert found is not None
    back = found.rows[0].values
    assert list(back) == [*values, "none"]
    assert back["none"] is None
    assert [s.mean.hex() for s in back.values() if s] == [number.hex() for number in odd]
    assert replace(found, rows=()) == replace(changed, rows=())


def remove_a_cell(store: CellStore) -> None:
    next((store.folder / "cells").glob("a-*-seed4.safetensors")).unlink()


def add_a_cell(store: CellStore) -> None:
    store.write(*Table(folds=2).cell("d"))


def change_a_cell(store: CellStore) -> None:
    store.write(*Table(folds=2).cell("a", skill=0.9, per_label=PER_LABEL))


@pytest.mark.parametrize("change", [remove_a_cell, add_a_cell, change_a_cell])
def test_other_cells_are_another_leaderboard(
    store: CellStore, change: Callable[[CellStore], None], computed: list[str]
) -> None:
    before = load_leaderboard(store)
    change(store)
    after = load_leaderboard(store)
    assert after != before
    assert after == build_leaderboard(*load_cells(store)) == load_leaderboard(store)
    assert len(computed) == 2


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_cell_that_is_damaged_later_is_still_found(store: CellStore, place: int) -> None:
    load_leaderboard(store)
    flip(store.paths()[3], place)
    with pytest.raises(CellDamagedError, match="is damaged"):
        load_leaderboard(store)


def test_rule_and_metric_are_not_mixed_up(store: CellStore) -> None:
    asked = [(HALF, "micro_f1"), (GLOBAL, "micro_f1"), (HALF, "subset_accuracy")]
    for rule, metric in [*asked, *asked]:
        board = load_leaderboard(store, rule=rule, metric=metric)
        assert (board.rule, board.metric) == (rule, metric)
        assert board == load_leaderboard(store, rule=rule, metric=metric)
        assert board == build_leaderboard(*load_cells(store), rule, metric)


def test_other_code_computes_anew(store: CellStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = made_of(store, HALF, "micro_f1")
    monkeypatch.setattr("toxbench.ranking.cache.version", lambda name: "99")
    assert made_of(store, HALF, "micro_f1") != before


@pytest.mark.parametrize("place", [0, 70, 140, -1])
def test_a_damaged_file_is_made_anew(store: CellStore, place: int, computed: list[str]) -> None:
    first, path = load_leaderboard(store), store.folder / FILE
    whole = path.read_bytes()
    flip(path, place)
    assert load_leaderboard(store) == first
    assert path.read_bytes() == whole
    assert len(computed) == 2


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff" * 99, b"[]"])
def test_a_file_of_something_else_is_made_anew(store: CellStore, content: bytes) -> None:
    first, path = load_leaderboard(store), store.folder / FILE
    whole = path.read_bytes()
    path.write_bytes(content)
    assert load_leaderboard(store) == first
    assert path.read_bytes() == whole


def test_a_whole_file_of_another_shape_is_no_leaderboard(store: CellStore) -> None:
    load_leaderboard(store)
    content = b'[{"rows": []}]'
    sealed = b"\n".join([b"f" * 64, hashlib.sha256(content).hexdigest().encode(), content])
    (store.folder / FILE).write_bytes(sealed)
    assert read_kept(store.folder, "f" * 64) is None


def test_a_folder_that_cannot_be_written_is_read_all_the_same(
    store: CellStore, computed: list[str]
) -> None:
    (store.folder / FILE / "in the way").mkdir(parents=True)  # root may write anywhere else
    assert load_leaderboard(store) == load_leaderboard(store)
    assert len(computed) == 2
    assert [path.name for path in store.folder.glob(f"*{FILE}*")] == [FILE]


def test_a_cell_that_comes_while_computing_is_not_left_out(
    store: CellStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*arguments: object) -> Leaderboard:
        add_a_cell(store)
        return build_leaderboard(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(ranking, "build_leaderboard", slow)
        load_leaderboard(store)
    assert not (store.folder / FILE).exists()
    assert "d" in load_leaderboard(store).unfinished


def test_several_folders_are_computed_and_nothing_is_kept(
    store: CellStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = CellStore(tmp_path_factory.mktemp("other"))
    other.protocol_path.write_bytes(store.protocol_path.read_bytes())
    add_a_cell(other)
    assert "d" in load_leaderboard(store, other).unfinished
    assert not (store.folder / FILE).exists()
