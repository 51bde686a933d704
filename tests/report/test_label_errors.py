"""Tables of rows to review: content, limits and escaping."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support import make_audit

from toxbench import Table
from toxbench.plugin.registry import Registry
from toxbench.ranking.predictions import StoredPredictions
from toxbench.report.predictions import (
    TABLES,
    DisplayOptions,
    disagreement_table,
    missed_table,
    suspect_table,
)
from toxbench.store.cells import FoldRows, ProtocolRecord

HOSTILE = "\x1b[31m|a\nb</td>\u202e"
PROTOCOL = ProtocolRecord(
    name="comments.csv",
    synthetic=False,
    fingerprint="0" * 64,
    data_fingerprint="d" * 64,
    rows=14,
    labels=("IsRude", "Is|Long", HOSTILE),
    supports={"IsRude": 6, "Is|Long": 0, HOSTILE: 0},
    test_supports=({"IsRude": 6, "Is|Long": 0, HOSTILE: 0},),
    audit=make_audit(),
    folds=(FoldRows(train=(0, 1), validation=(), test=tuple(range(2, 14))),),
)
TEXTS = tuple(f"comment {row} " + "x" * 200 for row in range(14))


@pytest.fixture
def predicted() -> StoredPredictions:
    """Twelve test rows; both candidates miss the first one and disagree on the second."""
    targets = np.zeros((12, 3), dtype=np.uint8)
    targets[:6, 0] = 1
    bert = (0.1 + 0.8 * targets).astype(np.float32)
    bert[0] = [0.02, 0.1, 0.9]
    roberta = bert.copy()
    roberta[0, 2] = 0.1
    roberta[1, 0] = 0.4
    return StoredPredictions(
        protocol=PROTOCOL,
        rows=np.arange(2, 14),
        ids=(HOSTILE, *(f"c{row}" for row in range(3, 14))),
        codes=targets,
        candidates={"bert": np.stack([bert, bert]), "roberta": roberta[None]},
        left_out=("always-negative",),
    )


def test_missed_rows_count_wrong_candidates(predicted: StoredPredictions) -> None:
    table = missed_table(predicted, DisplayOptions(20))
    assert table.headers == ("id", "false negatives", "false positives", "cross-entropy")
    assert len(table.rows) == 1
    assert table.rows[0][1] == "IsRude"
    assert table.rows[0][2].endswith("(1 of 2)")
    assert "bert (2 seeds), roberta (1 seed). Not included: always-negative." in table.notes[-1]


def test_disagreements_show_all_predictions(predicted: StoredPredictions) -> None:
    table = disagreement_table(predicted, DisplayOptions(20))
    assert table.headers == ("id", "given labels", "predicted by bert", "predicted by roberta")
    assert ("c3", "IsRude", "IsRude", "-") in table.rows


def test_label_errors_list_unchecked_labels(predicted: StoredPredictions) -> None:
    table = suspect_table(predicted, DisplayOptions(20))
    assert [row[1:] for row in table.rows] == [("IsRude", "yes", "0.020")]
    assert "a hint, not a proof" in table.notes[0]
    assert "Is|Long" in table.notes[1]


def test_title_counts_rows_beyond_the_limit(predicted: StoredPredictions) -> None:
    wrong = {"bert": 1 - predicted.candidates["bert"]}
    table = missed_table(replace(predicted, candidates=wrong), DisplayOptions(3))
    assert len(table.rows) == len(table.records) == 3
    assert table.title == (
        "Rows that every candidate gets wrong: 12 in 12 test rows (first 3 listed)"
    )


def test_single_candidate_has_no_disagreements(predicted: StoredPredictions) -> None:
    table = disagreement_table(
        replace(predicted, candidates={"bert": predicted.candidates["bert"]}), DisplayOptions(20)
    )
    assert table.rows == ()
    assert "needs two" in table.notes[0]


def test_texts_are_shortened(predicted: StoredPredictions) -> None:
    record = missed_table(predicted, DisplayOptions(20, TEXTS)).records[0]
    assert str(record["text"]).startswith("comment 2 xxx")
    assert len(str(record["text"])) == 120
    assert str(record["text"]).endswith("…")


@pytest.mark.parametrize("create", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("name", Registry.discover().formats)
def test_hostile_names_are_escaped_in_all_formats(
    create: object, name: str, predicted: StoredPredictions
) -> None:
    assert callable(create)
    table = create(predicted, DisplayOptions(20, (HOSTILE,) * 14))
    assert isinstance(table, Table)
    output = Registry.discover().report_format(name).item.render(table)
    assert "\x1b" not in output
    assert "\u202e" not in output
    if name in {"html", "github", "markdown"}:
        assert "</td>\\" not in output
    if name == "json":
        assert len(json.loads(output)["rows"]) == len(table.rows)
