"""Leaderboard rows from cell records written by hand."""

import random
import statistics
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import make_audit

from toxbench.errors import StorageError
from toxbench.ranking.rows import Leaderboard, Row, Statistic, summarize_cells
from toxbench.records import (
    PARTS,
    CellKey,
    CellRecord,
    Cost,
    Environment,
    LabelScores,
    Scores,
    WeightsRecord,
)
from toxbench.report.notes import warnings
from toxbench.settings import TrainSettings
from toxbench.store.cells import FoldRows, ProtocolRecord

FINGERPRINT = "f" * 64
PROTOCOL = ProtocolRecord(
    name="comments.csv",
    synthetic=False,
    fingerprint=FINGERPRINT,
    data_fingerprint="d" * 64,
    rows=4,
    labels=("IsRude",),
    supports={"IsRude": 2},
    test_supports=({"IsRude": 1},),
    audit=make_audit(),
    folds=(FoldRows(train=(0, 1), validation=(2,), test=(3,)),),
)
NAMES = (
    "micro_f1", "macro_f1", "subset_accuracy", "micro_precision", "micro_recall",
    "micro_average_precision",
)  # fmt: skip


def make_cell(
    candidate: str = "bert",
    seed: int = 0,
    digest: str = "0" * 12,
    test: float | None = 0.5,
    train: float | None = 0.75,
    rules: tuple[str, ...] = ("0.5", "global", "per-label"),
    learning_rate: float = 1e-5,
    **changes: Any,
) -> CellRecord:
    """Return a backbone's cell with scores ``test`` and ``train`` in every metric."""
    values: dict[str, float | None] = {"train": train, "validation": test, "test": test}
    parts: dict[Any, Scores] = {part: dict.fromkeys(NAMES, values[part]) for part in PARTS}
    fields: dict[str, Any] = {
        "key": CellKey(candidate=candidate, digest=digest, seed=seed),
        "kind": "backbone",
        "stochastic": changes.get("kind") != "baseline",
        "distribution": "toxbench 0.1.0",
        "fingerprint": FINGERPRINT,
        "weights": WeightsRecord(source="hub", label="hub", identity="abc"),
        "parameters": 110_000_000,
        "settings": TrainSettings(learning_rate=learning_rate),
        "environment": Environment(
            device="cpu", device_name="", precision="fp32", threads=1, versions={}, commit=None
        ),
        "cost": Cost(
            train_seconds=2.0, evaluation_seconds=1.0, comments_per_second=50.0,
            peak_memory_bytes=2**20,
        ),
        "epochs": (),
        "truncated_share": 0.0,
        "thresholds": dict.fromkeys(rules, (0.5,)),
        "versions": {},
        "metrics": dict.fromkeys(rules, parts),
        "per_label": {"0.5": ()},
        "has_constant_predictions": False,
    }  # fmt: skip
    return CellRecord(**(fields | changes))


def make_baseline(candidate: str, test: float) -> CellRecord:
    return make_cell(
        candidate, test=test, kind="baseline", weights=None, parameters=None, settings=None,
    )  # fmt: skip


def summarize(*cells: CellRecord) -> Leaderboard:
    return summarize_cells(PROTOCOL, cells)


def only_row(*cells: CellRecord) -> Row:
    (row,) = summarize(*cells).rows
    return row


scores = st.floats(0, 1)


@settings(deadline=None, max_examples=50)
@given(st.lists(scores, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_cell_order_is_irrelevant(values: list[float], shuffler: random.Random) -> None:
    cells = [make_cell(seed=seed, test=value) for seed, value in enumerate(values)]
    cells += [
        make_cell("roberta", test=values[0]),
        make_cell("roberta", test=values[-1], digest="1" * 12, learning_rate=2e-5),
        make_cell("roberta", test=values[0], digest="2" * 12, parameters=1),
        make_baseline("always-negative", test=values[0]),
    ]
    shuffled = list(cells)
    shuffler.shuffle(shuffled)
    assert summarize(*shuffled) == summarize(*cells)


@settings(deadline=None, max_examples=50)
@given(st.lists(scores, min_size=2, max_size=8))
def test_mean_and_deviation_are_over_seeds(values: list[float]) -> None:
    row = only_row(*(make_cell(seed=seed, test=value) for seed, value in enumerate(values)))
    statistic = row.values["micro_f1"]
    assert statistic is not None
    assert statistic.mean == pytest.approx(sum(values) / len(values), abs=1e-12)
    assert statistic.deviation == pytest.approx(statistics.stdev(values), abs=1e-12)
    assert (row.cells, row.seeds) == (len(values), len(values))


def test_deviation_is_a_sample_deviation() -> None:
    row = only_row(make_cell(seed=0, test=0.25), make_cell(seed=1, test=0.75))
    assert row.values["micro_f1"] == Statistic(0.5, pytest.approx(0.125**0.5))


def test_one_seed_has_no_deviation() -> None:
    assert only_row(make_cell(test=0.25)).values["micro_f1"] == Statistic(0.25, None)


@pytest.mark.parametrize("name", ["micro_f1", "subset_accuracy"])
def test_a_gap_is_train_minus_test(name: str) -> None:
    row = only_row(make_cell(seed=0, train=0.75, test=0.5), make_cell(seed=1, train=0.25, test=0.5))
    assert row.values[f"{name}_gap"] == Statistic(0.0, pytest.approx(0.125**0.5))
    assert row.values[f"train_{name}"] == Statistic(0.5, pytest.approx(0.125**0.5))
    single = only_row(make_cell(train=0.75, test=0.5))
    assert single.values[f"{name}_gap"] == Statistic(0.25, None)


def test_gap_of_a_missing_score_is_missing() -> None:
    assert only_row(make_cell(train=None)).values["micro_f1_gap"] is None
    assert only_row(make_cell(test=None)).values["micro_f1_gap"] is None


def test_value_missing_in_a_cell_is_missing() -> None:
    row = only_row(make_cell(seed=0, test=0.5), make_cell(seed=1, test=0.5, rules=("0.5",)))
    assert row.values["micro_f1"] == Statistic(0.5, 0.0)
    assert row.values["micro_f1_global"] is None
    assert row.values["micro_f1_per_label"] is None


def test_each_thresholds_rule_has_a_column() -> None:
    metrics = {
        rule: make_cell(test=value).metrics["0.5"]
        for rule, value in (("0.5", 0.25), ("global", 0.5), ("per-label", 0.75))
    }
    row = only_row(make_cell(metrics=metrics))
    columns = ("micro_f1", "micro_f1_global", "micro_f1_per_label")
    assert [row.values[column] for column in columns] == [
        Statistic(0.25, None), Statistic(0.5, None), Statistic(0.75, None)
    ]  # fmt: skip


def test_rows_are_sorted_with_missing_last() -> None:
    board = summarize(
        make_cell("low", test=0.1),
        make_cell("missing", test=None),
        make_cell("zero", test=0.0),
        make_cell("high", seed=0, test=0.9),
        make_cell("high", seed=1, test=0.5),
        make_baseline("middle", test=0.6),
    )
    assert [row.candidate for row in board.rows] == ["high", "middle", "low", "zero", "missing"]


def test_equal_scores_are_sorted_by_name() -> None:
    board = summarize(make_cell("b"), make_cell("c"), make_cell("a"))
    assert [row.candidate for row in board.rows] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("cells", "constant"), [((True, True), True), ((True, False), False), ((False,), False)]
)
def test_row_is_constant_if_all_cells_are(cells: tuple[bool, ...], constant: bool) -> None:
    records = [
        make_cell(seed=seed, has_constant_predictions=value) for seed, value in enumerate(cells)
    ]
    assert only_row(*records).constant is constant


def test_settings_distinguish_rows_of_a_backbone() -> None:
    board = summarize(
        make_cell("bert", test=0.6, learning_rate=2e-5, digest="2" * 12),
        make_cell("bert", test=0.5, learning_rate=1e-5),
        make_cell("roberta", test=0.4, learning_rate=3e-5),
        make_baseline("always-negative", test=0.0),
    )
    assert [(row.candidate, row.difference) for row in board.rows] == [
        ("bert", "learning_rate=2e-05"),
        ("bert", "learning_rate=1e-05"),
        ("roberta", ""),
        ("always-negative", ""),
    ]


def test_row_names_its_initial_weights() -> None:
    label = "stand-in: all-MiniLM-L6-v2"
    weights = WeightsRecord(source="stand-in", label=label, identity="5")
    row = only_row(make_cell(weights=weights))
    assert (row.weights, row.stand_in, row.parameters) == (label, True, 110_000_000)
    assert not only_row(make_cell()).stand_in
    baseline = only_row(make_baseline("always-negative", 0.0))
    assert (baseline.weights, baseline.stand_in, baseline.kind) == ("", False, "baseline")


def test_costs_are_means_per_cell() -> None:
    row = only_row(make_cell(seed=0), make_cell(seed=1))
    assert row.values["train_seconds"] == Statistic(2.0, 0.0)
    assert row.values["comments_per_second"] == Statistic(50.0, 0.0)
    assert row.values["peak_memory_bytes"] == Statistic(2**20, 0.0)


def test_folds_are_cells_but_not_seeds() -> None:
    keys = [CellKey(candidate="bert", digest="0" * 12, fold=fold, seed=7) for fold in range(3)]
    protocol = PROTOCOL.model_copy(update={"folds": PROTOCOL.folds * 3})
    (row,) = summarize_cells(protocol, (make_cell(key=key) for key in keys)).rows
    assert (row.cells, row.seeds) == (3, 1)


def test_cells_of_another_protocol_are_refused() -> None:
    with pytest.raises(StorageError, match="only results of one protocol can be compared"):
        summarize(make_cell(), make_cell(seed=1, fingerprint="e" * 64))


def test_no_cells_give_an_empty_leaderboard() -> None:
    assert summarize() == Leaderboard(PROTOCOL, ())


def test_baseline_and_backbone_may_share_a_name() -> None:
    baseline = make_cell("x", digest="1" * 12, settings=None, weights=None, kind="baseline")
    rows = summarize(make_cell("x"), baseline).rows
    assert {(row.kind, row.name) for row in rows} == {
        ("backbone", "x [#000000]"), ("baseline", "x [#111111]"),
    }  # fmt: skip


def label_scores(f1: float, average_precision: float | None) -> LabelScores:
    """Return a label's scores without the optional fields, as early versions stored them."""
    support = 0 if average_precision is None else 3
    return LabelScores(
        label="IsRude", support=support, threshold=0.5, precision=0.5, recall=0.5, f1=f1,
        average_precision=average_precision, roc_auc=None, prevalence=0.5, mcc=0.0,
        brier=0.25, expected_calibration_error=0.0,
    )  # fmt: skip


def test_label_means_skip_cells_without_positives() -> None:
    scores = [
        (label_scores(0.5, 0.25), label_scores(0.0, None)),
        (label_scores(0.25, 0.75), label_scores(0.0, None)),
    ]
    row = only_row(
        *(make_cell(seed=i, per_label={"0.5": labels}) for i, labels in enumerate(scores))
    )
    assert row.label_f1 == (0.375, 0.0)
    assert row.label_average_precision == (0.5, None)


@pytest.mark.faults(60)
def test_row_names_mixed_environments() -> None:
    environment = make_cell().environment
    other = environment.model_copy(update={"threads": 2, "versions": {"torch": "2.9"}})
    same = environment.model_copy(update={"versions": {"torch": "2.8"}})
    assert only_row(make_cell(environment=same), make_cell(seed=1, environment=same)).mixed == ""
    board = summarize(make_cell(environment=same), make_cell(seed=1, environment=other))
    assert board.rows[0].mixed == "threads (1, 2), torch (2.8, 2.9)"
    assert any("bert: its cells differ in threads (1, 2)" in text for text in warnings(board))
