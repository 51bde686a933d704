"""Pooled dropout equals torch's dropout, except for the choice of elements."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from toxbench.training.fast_dropout import PooledDropout


def test_rate_scale_and_gradient_equal_torchs() -> None:
    torch.manual_seed(0)
    inputs = torch.ones(400, 1001, requires_grad=True)
    with PooledDropout():
        outputs = functional.dropout(inputs, 0.1)
    outputs.sum().backward()
    dropped = (outputs == 0).float().mean().item()
    assert dropped == pytest.approx(0.1, abs=0.003)  # six standard errors
    assert outputs.max().item() == pytest.approx(1 / 0.9, rel=1e-4)
    torch.testing.assert_close(inputs.grad, outputs.detach())


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(1)
    with PooledDropout():
        dropped = (nn.Dropout(0.5)(torch.ones(4, 250_000)) == 0).float()
    pairs = (dropped[:, 1:] * dropped[:, :-1]).mean().item()
    assert pairs == pytest.approx(0.25, abs=0.004)


def test_masks_depend_on_the_seed() -> None:
    def mask(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        with PooledDropout():
            return functional.dropout(torch.ones(1000), 0.3)

    assert torch.equal(mask(5), mask(5))
    assert not torch.equal(mask(5), mask(6))


def test_masks_of_layers_and_batches_are_independent() -> None:
    torch.manual_seed(3)
    dropout, inputs = PooledDropout(), torch.ones(300_000)
    masks = []
    for _ in range(3):  # batches
        with dropout:
            masks += [functional.dropout(inputs, 0.5) == 0 for _ in range(3)]  # layers
    for number, mask in enumerate(masks):
        for earlier in masks[:number]:
            both = (mask & earlier).float().mean().item()
            assert both == pytest.approx(0.25, abs=0.006)  # seven standard errors


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_rates_zero_and_one_are_exact(p: float) -> None:
    with PooledDropout():
        outputs = functional.dropout(torch.ones(10), p)
    assert torch.equal(outputs, torch.full((10,), 1 - p))


def test_eval_mode_and_outside_are_unchanged() -> None:
    inputs = torch.randn(5, 7)
    layer = nn.Dropout(0.5).eval()
    with PooledDropout():
        assert torch.equal(layer(inputs), inputs)
    torch.manual_seed(2)
    plain = functional.dropout(inputs, 0.5)
    torch.manual_seed(2)
    assert torch.equal(functional.dropout(inputs, 0.5), plain)


@pytest.mark.parametrize("mask_type", ["bool", "float", "none"])
def test_attention_equals_torchs_at_a_tiny_rate(mask_type: str) -> None:
    torch.manual_seed(3)
    query, key, value = (torch.randn(2, 3, 6, 4) for _ in range(3))
    allowed = torch.rand(2, 1, 6, 6) > 0.3
    allowed[..., 0] = True
    bias = torch.zeros(2, 1, 6, 6).masked_fill(~allowed, -torch.inf)
    mask = {"bool": allowed, "float": bias, "none": None}[mask_type]
    with PooledDropout():
        # The rate is not rounded to 0, so that the pooled path runs, but it drops almost nothing.
        pooled = functional.scaled_dot_product_attention(query, key, value, mask, dropout_p=2e-5)
    expected = functional.scaled_dot_product_attention(query, key, value, mask)
    torch.testing.assert_close(pooled, expected, atol=1e-4, rtol=1e-3)


def test_attention_weights_are_dropped_at_the_rate() -> None:
    torch.manual_seed(4)
    query = torch.zeros(8, 4, 50, 8)
    value = torch.eye(50).expand(8, 4, 50, 50)
    with PooledDropout():
        weights = functional.scaled_dot_product_attention(query, query, value, dropout_p=0.25)
    assert (weights == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert weights.sum(-1).mean().item() == pytest.approx(1.0, abs=0.01)
