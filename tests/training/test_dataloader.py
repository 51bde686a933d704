"""Batches: every row once, like lengths together, padding no further than needed."""

import numpy as np
import pytest
import torch

from toxbench.data.tokenization import Tokens
from toxbench.training.dataloader import Batcher, epoch_batches, sorted_batches

TARGETS = np.eye(900, 3, dtype=np.uint8)


@pytest.fixture
def tokens() -> Tokens:
    lengths = np.random.default_rng(0).integers(3, 60, size=900)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.arange(1, offsets[-1] + 1, dtype=np.int32)
    return Tokens(ids, offsets, 0, np.zeros(900, dtype=bool))


def rows_of(tokens: Tokens) -> np.ndarray:
    return np.arange(len(tokens.lengths), dtype=np.int64)


@pytest.mark.parametrize("bucket", [True, False])
def test_every_row_is_in_exactly_one_batch(tokens: Tokens, bucket: bool) -> None:
    rng = np.random.default_rng(1)
    batches = epoch_batches(rows_of(tokens)[5:], tokens.lengths, 16, rng, bucket)
    assert sorted(np.concatenate(batches).tolist()) == list(range(5, 900))
    assert all(1 <= len(batch) <= 16 for batch in batches)


def test_bucketing_leaves_little_padding(tokens: Tokens) -> None:
    def padded(bucket: bool) -> int:
        rng = np.random.default_rng(1)
        batches = epoch_batches(rows_of(tokens), tokens.lengths, 16, rng, bucket)
        return sum(len(batch) * int(tokens.lengths[batch].max()) for batch in batches)

    assert padded(True) < 1.06 * tokens.lengths.sum() < padded(False)


def test_epochs_differ_and_seeds_repeat(tokens: Tokens) -> None:
    def order(rng: np.random.Generator) -> list[int]:
        batches = epoch_batches(rows_of(tokens), tokens.lengths, 16, rng, True)
        return np.concatenate(batches).tolist()

    rng = np.random.default_rng(3)
    first, second = order(rng), order(rng)
    assert first != second
    assert first == order(np.random.default_rng(3))


def test_a_batch_holds_its_rows_tokens_and_nothing_else(tokens: Tokens) -> None:
    rows = np.array([7, 899, 0], dtype=np.int64)
    batcher = Batcher(tokens, TARGETS, torch.device("cpu"))
    first, second = batcher.batches([rows[:2], rows])
    ids, mask = second.input_ids, second.attention_mask
    assert len(first) == 2
    assert second.targets.tolist() == TARGETS[rows].tolist()
    assert ids.shape == mask.shape == (3, int(tokens.lengths[rows].max()))
    for place, row in enumerate(rows):
        own = tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]]
        assert ids[place][mask[place].bool()].tolist() == own.tolist()
        assert (ids[place][~mask[place].bool()] == tokens.pad_id).all()


def test_padding_to_a_fixed_width(tokens: Tokens) -> None:
    (batch,) = Batcher(tokens, TARGETS, torch.device("cpu"), pad_to=64).batches([np.array([3])])
    assert batch.input_ids.shape == (1, 64)
    assert int(batch.attention_mask.sum()) == int(tokens.lengths[3])


def test_widths_rounded_up_are_few(tokens: Tokens) -> None:
    groups = epoch_batches(rows_of(tokens), tokens.lengths, 16, np.random.default_rng(0), True)
    batcher = Batcher(tokens, TARGETS, torch.device("cpu"), multiple=8)
    for rows, batch in zip(groups, batcher.batches(groups), strict=True):
        longest = int(tokens.lengths[rows].max())
        assert batch.input_ids.shape[1] % 8 == 0
        assert longest <= batch.input_ids.shape[1] < longest + 8


def test_no_rows_are_no_batches(tokens: Tokens) -> None:
    assert list(Batcher(tokens, TARGETS, torch.device("cpu")).batches([])) == []


def test_evaluation_batches_are_bounded_and_complete(tokens: Tokens) -> None:
    rows = rows_of(tokens)[10:]
    places = list(sorted_batches(rows, tokens.lengths, 500))
    assert sorted(np.concatenate(places).tolist()) == list(range(890))
    assert all(
        len(some) == 1 or len(some) * int(tokens.lengths[rows[some]].max()) <= 500
        for some in places
    )
