"""Checks of stored models on cases with known labels, and under changes of the text."""

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binomtest

import toxbench
from toxbench.data.groups import read_terms
from toxbench.errors import DataError
from toxbench.inference.behaviour import SHIPPED, case_table, change_table, read_cases

TERMS = {"women": ("women",), "men": ("men",), "old": ("old people",)}
LABELS = ("IsRude", "IsLong")
CASES = """functionality,text,expected
insult,you fool,1
insult,all {group} are bad,1
praise,I like {group},0
praise,thank you fool,0
"""
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cases.csv"
    path.write_text(CASES, encoding="utf-8")
    return path


def keyword_model(texts: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Predict the first label for a text with "fool" or "women", and never the second."""
    rude = ["fool" in text or "women" in text for text in texts]
    return np.array([[word, 0] for word in rude], dtype=np.uint8)


def test_slot_makes_a_case_of_each_group(path: Path) -> None:
    cases = read_cases(path, LABELS, "IsRude", TERMS)
    assert cases.texts[1:4] == ("all women are bad", "all men are bad", "all old people are bad")
    assert cases.rows == (0, 1, 1, 1, 2, 2, 2, 3)
    assert cases.targets.tolist() == [[1]] * 4 + [[0]] * 4


def test_pass_rates_count_all_expected_labels(path: Path) -> None:
    cases = read_cases(path, LABELS, "IsRude", TERMS)
    insult, praise = case_table(iter([("words", keyword_model)]), cases).records
    assert (insult["functionality"], insult["cases"], insult["texts"]) == ("insult", 4, 2)
    assert (insult["passed"], praise["passed"]) == (2 / 4, 2 / 4)
    interval = binomtest(1, 2).proportion_ci(method="wilson")
    assert (insult["low"], insult["high"]) == pytest.approx((interval.low, interval.high))


def test_flips_count_only_changed_texts(path: Path) -> None:
    cases = read_cases(path, LABELS, "IsRude", TERMS)
    table = change_table(iter([("words", keyword_model)]), cases, TERMS)
    upper, typo, punctuation, group = table.records
    assert (upper["cases"], upper["flipped"], upper["flipped labels"]) == (8, 4 / 8, 4 / 16)
    assert (punctuation["cases"], punctuation["flipped"]) == (8, 0)
    assert (typo["cases"], typo["flipped"]) == (6, 2 / 6)  # "fool" and "all" stay the same
    assert (group["cases"], group["texts"], group["flipped"]) == (6, 2, 4 / 6)


def test_change_without_effect_has_no_row(path: Path) -> None:
    cases = read_cases(path, LABELS, "IsRude", {"women": ("ladies",)})
    records = change_table(iter([("words", keyword_model)]), cases, {"other": ("word",)}).records
    assert [record["change"] for record in records] == ["upper case", "typo", "punctuation"]


def test_shipped_suite_checks_both_answers() -> None:
    terms = read_terms()
    cases = read_cases(SHIPPED, LABELS, "IsLong", terms)
    assert cases.columns == (1,)
    assert len(cases.texts) > 15 * len(terms)
    assert len(set(cases.functionalities)) == 9
    assert 0 < cases.targets.mean() < 1
    assert not any("{" in text for text in cases.texts)


@pytest.mark.parametrize(
    ("old", "new", "label", "message"),
    [
        ("text", "texts", "IsRude", "no column is called 'text'"),
        ("functionality", "name", "IsRude", "no column is called 'functionality'"),
        ("expected", "expected", None, "'expected' is not a label of the models"),
        ("expected", "IsRud", None, "'IsRud' is not a label of the models"),
        ("you fool,1", "you fool,maybe", "IsRude", "is not a label"),
        ("you fool,1", ",1", "IsRude", "the text is empty"),
    ],
)
def test_unusable_cases_are_refused(
    path: Path, old: str, new: str, label: str | None, message: str
) -> None:
    path.write_text(CASES.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_cases(path, LABELS, label, TERMS)


# Stored models


def rows_of(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert result.returncode == 0, result.stderr
    rows: list[dict[str, Any]] = json.loads(result.stdout)["rows"]
    return rows


@pytest.mark.slow
def test_stored_models_are_checked(cli: Cli, results: Path, path: Path) -> None:
    path.write_text("text,functionality,IsRude,IsLong\nyou fool,a,1,0\nthank you,b,0,1\n")
    rows = rows_of(cli("behaviour", str(results), "--cases", str(path), "--json"))
    assert {row["candidate"] for row in rows} == {"bert", "distilbert", "roberta"}
    for row in rows:
        text, expected = (
            ("you fool", [1, 0]) if row["functionality"] == "a" else ("thank you", [0, 1])
        )
        predicted = toxbench.predict(results, [text], backbone=row["candidate"])
        assert row["passed"] == float((predicted[list(LABELS)].to_numpy() == expected).all())


@pytest.mark.slow
def test_lower_case_models_ignore_upper_case(cli: Cli, results: Path, path: Path) -> None:
    words = ("--cases", str(path), "--label", "IsRude", "--table", "changes")
    rows = rows_of(cli("behaviour", str(results), *words, "--json"))
    assert {row["flipped"] for row in rows if row["change"] == "upper case"} == {0}
    assert {row["change"] for row in rows} >= {"typo", "punctuation", "another group"}
    shown = cli("behaviour", str(results), *words)
    assert "fool" not in shown.stdout + shown.stderr


@pytest.mark.slow
def test_unknown_label_of_cases_is_refused(cli: Cli, results: Path) -> None:
    result = cli("behaviour", str(results), "--label", "IsRud")
    assert (result.returncode, result.stdout) == (2, "")
    assert "did you mean 'IsRude'" in result.stderr
