"""Leaderboard tables: columns, rounding and notes."""

from dataclasses import replace
from typing import Any

import pytest
from support import make_audit

from toxbench import Table
from toxbench.evaluation.thresholds import HALF
from toxbench.ranking.columns import columns
from toxbench.ranking.rows import Leaderboard, Row, Statistic
from toxbench.report.html.page import render_notebook_table, render_site
from toxbench.report.labels import label_table, label_tables
from toxbench.report.leaderboard import leaderboard_records, leaderboard_table, leaderboard_tables
from toxbench.report.tables import create_table
from toxbench.store.cells import FoldRows, ProtocolRecord
from toxbench.util.text import format_millions

PROTOCOL = ProtocolRecord(
    name="comments.csv",
    synthetic=False,
    fingerprint="0123456789abcdef" * 4,
    data_fingerprint="d" * 64,
    rows=10,
    labels=("IsRude", "IsLong", "IsNever"),
    supports={"IsRude": 4, "IsLong": 3, "IsNever": 1},
    test_supports=({"IsRude": 1, "IsLong": 2, "IsNever": 0},),
    audit=make_audit(),
    folds=(FoldRows(train=(0, 1, 2, 3, 4), validation=(5, 6), test=(7, 8, 9)),),
)
THIRD = Statistic(1 / 3, None)


def make_row(values: dict[str, Statistic | None] | None = None, **changes: Any) -> Row:
    row = Row(
        candidate="bert",
        digest="0" * 12,
        kind="backbone",
        stochastic=changes.get("kind") != "baseline",
        difference="",
        weights="google-bert/bert-base-uncased@86b5e09",
        stand_in=False,
        parameters=109_490_000,
        cells=1,
        seeds=1,
        values=dict.fromkeys(columns(HALF), THIRD) | (values or {}),
        tuning=None,
        label_f1=(0.5,) * len(PROTOCOL.labels),
        label_average_precision=(0.75,) * 2 + (None,),
        constant=False,
    )
    return replace(row, **changes)


def build_leaderboard(*rows: Row, **changes: Any) -> Leaderboard:
    return Leaderboard(PROTOCOL.model_copy(update=changes), rows or (make_row(),))


def cell(table: Table, title: str, row: int = 0) -> str:
    return table.rows[row][table.headers.index(title)]


def notes(leaderboard: Leaderboard) -> str:
    return "\n".join(leaderboard_table(leaderboard).notes)


def test_title_has_table_and_row_counts() -> None:
    assert leaderboard_table(build_leaderboard()).title == (
        "Leaderboard of comments.csv: 3 test rows, 5 train, 2 validation; protocol 0123456789ab"
    )


def test_scores_have_decimals_and_deviation() -> None:
    values = {"micro_f1": Statistic(0.64649, 0.02951), "micro_recall": None}
    table = leaderboard_table(build_leaderboard(make_row(values)))
    assert cell(table, "micro-F1") == "0.646 ± 0.030"
    assert cell(table, "subset accuracy") == "0.333"
    assert cell(table, "micro-recall") == "-"


def test_costs_have_readable_units() -> None:
    values: dict[str, Statistic | None] = {
        "train_seconds": Statistic(12.34, 0.5),
        "comments_per_second": Statistic(99.6, None),
        "peak_memory_bytes": Statistic(3 * 2**20, None),
    }
    table = leaderboard_table(build_leaderboard(make_row(values)))
    titles = ("seconds", "train comments/s", "peak memory", "parameters")
    assert [cell(table, title) for title in titles] == ["12.3", "100", "3 MiB", "109.5 M"]


def test_missing_values_are_dashes() -> None:
    values = dict.fromkeys(("comments_per_second", "peak_memory_bytes", "micro_f1_global"), None)
    row = make_row(values, kind="baseline", weights="", parameters=None)
    table = leaderboard_table(build_leaderboard(row))
    titles = (
        "weights", "parameters", "train comments/s", "peak memory", "micro-F1 (global threshold)",
    )  # fmt: skip
    assert [cell(table, title) for title in titles] == ["-"] * 5


def test_macro_f1_title_counts_labels() -> None:
    assert "macro-F1 (2 of 3 labels)" in leaderboard_table(build_leaderboard()).headers


def test_row_has_cell_for_every_header() -> None:
    board = build_leaderboard(make_row(), make_row(candidate="roberta"))
    for table in (leaderboard_table(board), *leaderboard_tables(board)):
        assert [len(row) for row in table.rows] == [len(table.headers)] * 2
        assert [row[0] for row in table.rows] == ["bert", "roberta"]
        assert len(table.records) == 2


def test_leaderboard_tables_have_all_columns_and_notes() -> None:
    board = build_leaderboard()
    parts = leaderboard_tables(board)
    full = leaderboard_table(board)
    assert {title for part in parts for title in part.headers} == set(full.headers)
    assert parts[0].headers == (
        "backbone", "micro-F1", "subset accuracy", "F1 gap", "accuracy gap", "seconds",
    )  # fmt: skip
    assert len(parts[0].notes) <= 5
    assert parts[-1].notes == full.notes


def test_name_has_settings_and_constant_mark() -> None:
    row = make_row(difference="learning_rate=1e-05", constant=True)
    table = leaderboard_table(build_leaderboard(row))
    assert cell(table, "backbone") == "bert [learning_rate=1e-05] (constant!)"


STAND_IN = make_row(stand_in=True)
NOTES: dict[str, tuple[Leaderboard, str]] = {
    "synthetic": (build_leaderboard(synthetic=True), "Synthetic sample"),
    "stand_in": (build_leaderboard(make_row(), STAND_IN), "Stand-in weights are small substitutes"),
    "constant": (
        build_leaderboard(make_row(constant=True)),
        "(constant!): the candidate predicts the same",
    ),
    "deviation": (build_leaderboard(make_row(cells=2, seeds=2)), "± is the standard deviation"),
    "uneven": (
        build_leaderboard(make_row(cells=3, seeds=3), make_row(cells=2, seeds=2)),
        "different numbers of seeds",
    ),
}


@pytest.mark.parametrize(("columns", "is_wide"), [(2, False), (4, True), (7, True)])
def test_table_with_long_rows_is_wide(columns: int, is_wide: bool) -> None:
    cell = "0.659 [0.604, 0.710]"
    table = create_table("", ["score"] * columns, [[cell] * columns])
    assert ('class="wide"' in render_notebook_table(table)) == is_wide


def test_site_marks_stand_ins() -> None:
    page = render_site({"bert/report.html": build_leaderboard(STAND_IN)})
    assert "bert (stand-in)" in page


@pytest.mark.parametrize(("leaderboard", "text"), NOTES.values(), ids=NOTES)
def test_note_appears_only_if_it_applies(leaderboard: Leaderboard, text: str) -> None:
    assert text in notes(leaderboard)
    assert text not in notes(build_leaderboard())


def test_leaking_split_has_a_note() -> None:
    audit = make_audit(test_rows=3, leaked_rows=1, exact_copies=((7, 0),))
    assert "The split leaks" in notes(build_leaderboard(audit=audit))
    assert "The split leaks" not in notes(build_leaderboard(audit=make_audit()))


def test_unscored_labels_are_listed() -> None:
    assert "without a positive test row: IsNever." in notes(build_leaderboard())
    scored = ({"IsRude": 1, "IsLong": 2, "IsNever": 1},)
    assert "without a positive test row" not in notes(build_leaderboard(test_supports=scored))


def test_baseline_seeds_are_not_compared() -> None:
    board = build_leaderboard(make_row(cells=3, seeds=3), make_row(kind="baseline"))
    assert "numbers of seeds" not in notes(board)


def test_thresholds_are_explained() -> None:
    assert "threshold 0.5, unless the column title names other rows or thresholds" in notes(
        build_leaderboard()
    )


def test_records_are_unrounded() -> None:
    row = make_row({"micro_f1": Statistic(1 / 3, 2 / 3), "peak_memory_bytes": None}, stand_in=True)
    first, second = leaderboard_records(build_leaderboard(row, make_row(candidate="roberta")))
    assert (first["rank"], second["rank"]) == (1, 2)
    assert (first["micro_f1"], first["micro_f1_sd"]) == (1 / 3, 2 / 3)
    assert (first["peak_memory_bytes"], first["peak_memory_bytes_sd"]) == (None, None)
    assert (second["micro_f1"], second["micro_f1_sd"]) == (1 / 3, None)
    assert (first["stand_in"], second["stand_in"]) == (True, False)
    assert first["scored_labels"] == 2
    assert first.keys() == second.keys()
    assert {*columns(HALF), *(f"{name}_sd" for name in columns(HALF))} <= first.keys()


def test_label_without_support_has_no_score() -> None:
    leaderboard = build_leaderboard(make_row(label_f1=(1 / 3, *[0.5] * (len(PROTOCOL.labels) - 1))))
    table, precision = label_tables(leaderboard)
    supports = build_leaderboard().protocol.test_supports[0]
    assert [row[0] for row in table.rows] == list(supports)
    for row, record, support in zip(table.rows, table.records, supports.values(), strict=True):
        assert row[1] == str(support)
        assert (row[2] == "-") == (support == 0) == (record["bert"] is None)
    assert table.rows[0][2] == "0.333 (too few)"
    assert precision.headers == ("label", "prevalence", "bert")
    assert precision.rows == (
        ("IsRude", "0.333", "0.750 (too few)"), ("IsLong", "0.667", "0.750 (too few)"),
        ("IsNever", "0.000", "-"),
    )  # fmt: skip
    full = label_table(leaderboard)
    assert full.rows[0] == ("IsRude", "1", "0.333 (too few)", "0.333", "0.750 (too few)")
    assert full.headers[2:] == ("bert F1", "prevalence", "bert average precision")
    assert full.records[2] == dict(zip(full.headers, ("IsNever", 0, None, 0, None), strict=True))


def test_prevalence_skips_folds_without_positives() -> None:
    folds = (
        FoldRows(train=(2, 3, 4, 5), validation=(), test=(0, 1)),
        FoldRows(train=(0, 1), validation=(), test=(2, 3, 4, 5)),
    )
    supports = ({"IsRude": 1, "IsLong": 2, "IsNever": 0}, {"IsRude": 1, "IsLong": 0, "IsNever": 0})
    _, precision = label_tables(build_leaderboard(folds=folds, test_supports=supports))
    assert [row["prevalence"] for row in precision.records] == [3 / 8, 1, 0]


@pytest.mark.parametrize(
    ("count", "text"), [(None, "-"), (22_713_216, "22.7 M"), (0, "0.0 M"), (49_999, "0.0 M")]
)
def test_millions_are_rounded(count: int | None, text: str) -> None:
    assert format_millions(count) == text
