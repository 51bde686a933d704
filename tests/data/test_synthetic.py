"""The built-in sample: the same on every machine, and similar to the real table."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from toxbench.data.groups import row_groups
from toxbench.data.protocol import Protocol
from toxbench.data.samples import LABELS, SAMPLE_NAME, sample_comments, sample_frame
from toxbench.data.table import TextDataset, read_comments

PRINT_FINGERPRINT = (
    "from toxbench.data.samples import sample_comments\n"
    "from toxbench.data.protocol import Protocol\n"
    "print(Protocol(sample_comments(), ()).data_fingerprint)"
)


@pytest.fixture(scope="module")
def sample() -> TextDataset:
    return sample_comments()


def test_repeated_calls_return_the_same_sample(sample: TextDataset) -> None:
    repeated = sample_comments()
    assert repeated.texts == sample.texts
    assert repeated.ids == sample.ids
    assert repeated.groups == sample.groups
    assert np.array_equal(repeated.targets, sample.targets)


def test_hash_seeds_do_not_change_the_sample(sample: TextDataset) -> None:
    process = subprocess.run(
        [sys.executable, "-c", PRINT_FINGERPRINT],
        env={**os.environ, "PYTHONHASHSEED": "4242"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.strip() == Protocol(sample, ()).data_fingerprint


def test_the_sample_has_a_fixed_fingerprint(sample: TextDataset) -> None:
    """A change makes stored cells incomparable: it must be deliberate and updated here."""
    assert Protocol(sample, ()).data_fingerprint == (
        "dbd91ca4ad69e485b9e0589e247ea38b6f5f0470dd511bdae4d5a3c5a33a67d3"
    )


def test_sample_has_the_real_columns(sample: TextDataset) -> None:
    assert sample_frame().columns.tolist() == ["CommentId", "VideoId", "Text", *LABELS]
    assert sample.labels == LABELS
    assert sample.name == SAMPLE_NAME
    assert sample.ignored_columns == ()


def test_the_sample_has_the_real_column_order(sample: TextDataset, real_table: Path) -> None:
    real = read_comments(real_table)
    labels, columns = real.labels, real.columns  # a failure must not print a comment
    assert sample.labels == labels
    assert sample.columns == columns


def test_the_sample_is_unchanged_by_a_file(sample: TextDataset, tmp_path: Path) -> None:
    sample_frame().to_csv(tmp_path / "sample.csv", index=False)
    read = read_comments(tmp_path / "sample.csv")
    assert Protocol(read, ()).data_fingerprint == Protocol(sample, ()).data_fingerprint
    assert read.groups == sample.groups


def test_the_sample_resembles_the_real_table(sample: TextDataset) -> None:
    supports = sample.supports
    assert 300 <= len(sample) <= 1000
    assert [label for label in LABELS if supports[label] == 0] == ["IsHomophobic", "IsRadicalism"]
    assert 0 < min(count for count in supports.values() if count) < 10
    assert 0.4 < np.mean(~sample.targets.any(axis=1)) < 0.7
    assert supports["IsToxic"] == max(supports.values())


def test_the_sample_has_repeats_and_ungrouped_rows(sample: TextDataset) -> None:
    assert sample.groups is not None
    groups = [group for group in sample.groups if group is not None]
    assert len(set(sample.texts)) < len(sample)
    assert 1 < len(set(groups)) <= 20
    assert 0 < len(sample) - len(groups) < 30


def test_text_lengths_vary_widely(sample: TextDataset) -> None:
    words = np.array([len(text.split()) for text in sample.texts])
    assert words.min() <= 5
    assert words.max() >= 200
    assert words.max() > 10 * np.median(words)


def test_all_template_slots_are_filled(sample: TextDataset) -> None:
    assert not any("{" in text or "}" in text for text in sample.texts)


def test_equal_texts_are_in_one_video(sample: TextDataset) -> None:
    """Otherwise grouped splits would link all videos."""
    assert np.bincount(row_groups(sample)).max() < len(sample) / 4
