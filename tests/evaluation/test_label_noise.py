"""Upper bounds of scores on tables with copies that have different labels."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from toxbench.data.duplicates import number_copies
from toxbench.data.table import read_comments
from toxbench.evaluation.label_errors import ScoreBounds, label_noise, score_bounds
from toxbench.util.arrays import UNLABELLED

SENTENCE = "the same seven words stand in both"


@pytest.mark.parametrize("seed", range(20))
def test_bounds_equal_best_of_all_predictions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = np.unique(rng.integers(0, 3, 8), return_inverse=True)[1]
    targets = (rng.random((8, 2)) < rng.choice([0.2, 0.5, 0.8])).astype(np.uint8)
    every_label = product([0, 1], repeat=2 * len(set(texts)))
    predictions = [np.array(labels).reshape(-1, 2)[texts] for labels in every_label]
    bounds = score_bounds(targets, texts)
    assert bounds.micro_f1 == pytest.approx(
        max(f1_score(targets, p, average="micro", zero_division=0) for p in predictions)
    )
    assert bounds.subset_accuracy == max(accuracy_score(targets, p) for p in predictions)


def write(path: Path, texts: list[str], rude: list[int]) -> Path:
    pd.DataFrame({"text": texts, "rude": rude}).to_csv(path, index=False)
    return path


def bounds_of(table: Path) -> tuple[ScoreBounds, ScoreBounds] | None:
    comments = read_comments(table)
    return label_noise(comments.codes, number_copies(comments))


def test_near_copies_count_as_copies(tmp_path: Path) -> None:
    texts = [SENTENCE, f"{SENTENCE}!!", "another one", "a third one"]
    bounds = bounds_of(write(tmp_path / "a.csv", texts, [0, 1, 1, 0]))
    assert bounds is not None
    everywhere, copied = bounds
    assert (copied.rows, copied.subset_accuracy, copied.micro_f1) == (2, 0.5, pytest.approx(2 / 3))
    assert (everywhere.rows, everywhere.subset_accuracy) == (4, 0.75)


def test_table_without_copies_has_no_bound(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", ["one", "two", "three"], [0, 1, 1])
    assert bounds_of(table) is None


def test_unlabelled_rows_contradict_nothing() -> None:
    codes = np.array([[1], [0], [UNLABELLED], [1]], dtype=np.uint8)
    bounds = label_noise(codes, np.array([0, 1, 0, 0]))
    assert bounds == (ScoreBounds(3, 1.0, 1.0), ScoreBounds(2, 1.0, 1.0))


def test_data_check_prints_the_bounds(
    cli: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    texts = ["You are GREAT", "you are great", *(f"text {number}" for number in range(18))]
    table = write(tmp_path / "a.csv", texts, [0, 1] * 10)
    result = cli("data", "check", str(table))
    assert result.returncode == 0, result.stderr
    assert "Label noise: 2 rows have a copy" in result.stdout
    assert "subset accuracy of 0.500 on these rows" in " ".join(result.stdout.split())
