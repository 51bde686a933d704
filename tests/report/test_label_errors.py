"""Tables of rows to look at: what is shown of them, and that none of it can do harm."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support import make_audit

from toxbench import Table
from toxbench.plugin.registry import Registry
from toxbench.ranking.predictions import StoredPredictions
from toxbench.report.label_errors import (
    TABLES,
    Shown,
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
    folds=(FoldRows(train=(0, 1), validation=(), test=tuple(range(2, 14))),),
    definitions={},
    audit=make_audit(),
)
TEXTS = tuple(f"comment {row} " + "x" * 200 for row in range(14))


@pytest.fixture
def predicted() -> StoredPredictions:
    """Twelve tested rows; both miss the first one, and the second is disagreed about."""
    targets = np.zeros((12, 3), dtype=np.uint8)
    targets[:6, 0] = 1
    one = (0.1 + 0.8 * targets).astype(np.float32)
    one[0] = [0.02, 0.1, 0.9]
    other = one.copy()
    other[0, 2] = 0.1
    other[1, 0] = 0.4
    return StoredPredictions(
        protocol=PROTOCOL,
        rows=np.arange(2, 14),
        ids=(HOSTILE, *(f"c{row}" for row in range(3, 14))),
        targets=targets,
        candidates={"bert": np.stack([one, one]), "other": other[None]},
        left_out=("always-negative",),
    )


def test_missed_rows_name_what_is_wrong_and_in_how_many(predicted: StoredPredictions) -> None:
    table = missed_table(predicted, Shown(20))
    assert table.headers == ("id", "missed", "wrongly predicted", "loss")
    assert len(table.rows) == 1
    assert table.rows[0][1] == "IsRude"
    assert table.rows[0][2].endswith("(1 of 2)")
    assert "bert (2 seeds), other (1 seed); not counted: always-negative" in table.notes[-1]


def test_disagreements_show_what_each_says_beside_what_is_given(
    predicted: StoredPredictions,
) -> None:
    table = disagreement_table(predicted, Shown(20))
    assert table.headers == ("id", "given", "bert says", "other says")
    assert ("c3", "IsRude", "IsRude", "-") in table.rows


def test_suspect_labels_say_what_was_not_judged(predicted: StoredPredictions) -> None:
    table = suspect_table(predicted, Shown(20))
    assert [row[1:] for row in table.rows] == [("IsRude", "yes", "0.020")]
    assert "a hint to look at, not a proof" in table.notes[0]
    assert "Is|Long" in table.notes[1]


def test_a_limit_says_how_many_there_are(predicted: StoredPredictions) -> None:
    wrong = {"bert": 1 - predicted.candidates["bert"]}
    table = missed_table(replace(predicted, candidates=wrong), Shown(3))
    assert len(table.rows) == len(table.records) == 3
    assert table.title == (
        "Rows that every candidate gets wrong: 12, the first 3 shown; 12 rows were tested"
    )


def test_one_candidate_disagrees_with_nobody(predicted: StoredPredictions) -> None:
    table = disagreement_table(
        replace(predicted, candidates={"bert": predicted.candidates["bert"]}), Shown(20)
    )
    assert table.rows == ()
    assert "it takes two" in table.notes[0]


def test_texts_are_those_of_the_tested_rows_and_short(predicted: StoredPredictions) -> None:
    record = missed_table(predicted, Shown(20, TEXTS)).records[0]
    assert str(record["text"]).startswith("comment 2 xxx")
    assert len(str(record["text"])) == 120
    assert str(record["text"]).endswith("…")


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("name", Registry.discover().formats)
def test_hostile_ids_labels_and_texts_are_harmless_everywhere(
    make: object, name: str, predicted: StoredPredictions
) -> None:
    assert callable(make)
    table = make(predicted, Shown(20, (HOSTILE,) * 14))
    assert isinstance(table, Table)
    written = Registry.discover().report_format(name).item.render(table)
    assert "\x1b" not in written
    assert "\u202e" not in written
    if name in {"html", "github", "markdown"}:
        assert "</td>\\" not in written
    if name == "json":
        assert len(json.loads(written)["rows"]) == len(table.rows)
