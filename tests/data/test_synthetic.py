"""The built-in sample: the same on every machine, and of the shape of the real table."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from toxbench.data.groups import row_groups
from toxbench.data.protocol import Protocol
from toxbench.data.synthetic import LABELS, SAMPLE_NAME, sample_comments, sample_frame
from toxbench.data.table import TextDataset, read_comments

PRINT_FINGERPRINT = (
    "from toxbench.data.synthetic import sample_comments\n"
    "from toxbench.data.protocol import Protocol\n"
    "print(Protocol(sample_comments(), ()).data_fingerprint)"
)


@pytest.fixture(scope="module")
def sample() -> TextDataset:
    return sample_comments()


def test_the_sample_is_the_same_twice(sample: TextDataset) -> None:
    again = sample_comments()
    assert again.texts == sample.texts
    assert again.ids == sample.ids
    assert again.groups == sample.groups
    assert np.array_equal(again.targets, sample.targets)


def test_the_sample_is_the_same_in_a_process_with_other_hashes(sample: TextDataset) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", PRINT_FINGERPRINT],
        env={**os.environ, "PYTHONHASHSEED": "4242"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == Protocol(sample, ()).data_fingerprint


def test_the_sample_is_the_same_on_every_machine(sample: TextDataset) -> None:
    """A change of it makes stored cells incomparable: it must be meant, and said here."""
    assert Protocol(sample, ()).data_fingerprint == (
        "dbd91ca4ad69e485b9e0589e247ea38b6f5f0470dd511bdae4d5a3c5a33a67d3"
    )


def test_the_sample_has_the_columns_of_the_real_table(sample: TextDataset) -> None:
    assert sample_frame().columns.tolist() == ["CommentId", "VideoId", "Text", *LABELS]
    assert sample.labels == LABELS
    assert sample.name == SAMPLE_NAME
    assert sample.ignored == ()


def test_the_sample_has_the_columns_in_the_order_of_the_real_table(
    sample: TextDataset, real_table: Path
) -> None:
    real = read_comments(real_table)
    labels, columns = real.labels, real.columns  # so that a failure prints no comment
    assert sample.labels == labels
    assert sample.columns == columns


def test_the_sample_survives_a_file(sample: TextDataset, tmp_path: Path) -> None:
    sample_frame().to_csv(tmp_path / "sample.csv", index=False)
    read = read_comments(tmp_path / "sample.csv")
    assert Protocol(read, ()).data_fingerprint == Protocol(sample, ()).data_fingerprint
    assert read.groups == sample.groups


def test_the_sample_is_several_hundred_rows_and_hard_in_the_ways_the_real_table_is(
    sample: TextDataset,
) -> None:
    supports = sample.supports
    assert 300 <= len(sample) <= 1000
    assert [label for label in LABELS if supports[label] == 0] == ["IsHomophobic", "IsRadicalism"]
    assert 0 < min(count for count in supports.values() if count) < 10
    assert 0.4 < np.mean(~sample.targets.any(axis=1)) < 0.7
    assert supports["IsToxic"] == max(supports.values())


def test_the_sample_repeats_texts_and_has_rows_without_a_group(sample: TextDataset) -> None:
    assert sample.groups is not None
    named = [group for group in sample.groups if group is not None]
    assert len(set(sample.texts)) < len(sample)
    assert 1 < len(set(named)) <= 20
    assert 0 < len(sample) - len(named) < 30


def test_the_lengths_of_the_sample_are_very_different(sample: TextDataset) -> None:
    words = np.array([len(text.split()) for text in sample.texts])
    assert words.min() <= 5
    assert words.max() >= 200
    assert words.max() > 10 * np.median(words)


def test_no_slot_of_the_templates_is_left_open(sample: TextDataset) -> None:
    assert not any("{" in text or "}" in text for text in sample.texts)


def test_equal_texts_of_the_sample_stand_below_one_video(sample: TextDataset) -> None:
    """Or grouped splits would find that all videos belong together."""
    assert np.bincount(row_groups(sample)).max() < len(sample) / 4
