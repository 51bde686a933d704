"""Batches: each row once, similar lengths together, little padding."""

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
    return Tokens(ids, offsets, np.arange(901), 0, np.zeros(900, dtype=np.int32))


def all_rows(tokens: Tokens) -> np.ndarray:
    return np.arange(len(tokens.lengths), dtype=np.int64)


@pytest.mark.parametrize("bucket", [True, False])
def test_every_row_is_in_exactly_one_batch(tokens: Tokens, bucket: bool) -> None:
    rng = np.random.default_rng(1)
    batches = epoch_batches(all_rows(tokens)[5:], tokens.lengths, 16, rng, bucket)
    assert sorted(np.concatenate(batches).tolist()) == list(range(5, 900))
    assert all(1 <= len(batch) <= 16 for batch in batches)


def test_buckets_reduce_padding(tokens: Tokens) -> None:
    def padded_tokens(bucket: bool) -> int:
        rng = np.random.default_rng(1)
        batches = epoch_batches(all_rows(tokens), tokens.lengths, 16, rng, bucket)
        return sum(len(batch) * int(tokens.lengths[batch].max()) for batch in batches)

    assert padded_tokens(True) < 1.06 * tokens.lengths.sum() < padded_tokens(False)


def test_order_depends_on_seed_and_epoch(tokens: Tokens) -> None:
    def order(rng: np.random.Generator) -> list[int]:
        batches = epoch_batches(all_rows(tokens), tokens.lengths, 16, rng, True)
        return np.concatenate(batches).tolist()

    rng = np.random.default_rng(3)
    first, second = order(rng), order(rng)
    assert first != second
    assert first == order(np.random.default_rng(3))


def test_batch_holds_exactly_its_rows_tokens(tokens: Tokens) -> None:
    rows = np.array([7, 899, 0], dtype=np.int64)
    batcher = Batcher(tokens, TARGETS, torch.device("cpu"))
    first, second = batcher.batches([rows[:2], rows])
    ids, mask = second.input_ids, second.attention_mask
    assert len(first) == 2
    assert second.targets.tolist() == TARGETS[rows].tolist()
    assert ids.shape == mask.shape == (3, int(tokens.lengths[rows].max()))
    for position, row in enumerate(rows):
        expected = tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]]
        assert ids[position][mask[position].bool()].tolist() == expected.tolist()
        assert (ids[position][~mask[position].bool()] == tokens.pad_id).all()


def test_pad_to_sets_the_width(tokens: Tokens) -> None:
    (batch,) = Batcher(tokens, TARGETS, torch.device("cpu"), pad_to=64).batches([np.array([3])])
    assert batch.input_ids.shape == (1, 64)
    assert int(batch.attention_mask.sum()) == int(tokens.lengths[3])


def test_width_is_rounded_to_a_multiple(tokens: Tokens) -> None:
    groups = epoch_batches(all_rows(tokens), tokens.lengths, 16, np.random.default_rng(0), True)
    batcher = Batcher(tokens, TARGETS, torch.device("cpu"), multiple=8)
    for rows, batch in zip(groups, batcher.batches(groups), strict=True):
        longest = int(tokens.lengths[rows].max())
        assert batch.input_ids.shape[1] % 8 == 0
        assert longest <= batch.input_ids.shape[1] < longest + 8


def test_no_rows_give_no_batches(tokens: Tokens) -> None:
    assert list(Batcher(tokens, TARGETS, torch.device("cpu")).batches([])) == []


def test_sorted_batches_are_bounded_and_complete(tokens: Tokens) -> None:
    rows = all_rows(tokens)[10:]
    batches = list(sorted_batches(rows, tokens.lengths, 500))
    assert sorted(np.concatenate(batches).tolist()) == list(range(890))
    assert all(
        len(batch) == 1 or len(batch) * int(tokens.lengths[rows[batch]].max()) <= 500
        for batch in batches
    )
