"""The head without a pooler."""

from pathlib import Path

import pytest
import torch
from support import write_checkpoint
from transformers import AutoModel

from toxbench import first_token_classifier


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_finishing_the_first_token_only_changes_no_logit(tmp_path: Path, model_type: str) -> None:
    folder = write_checkpoint(tmp_path / "tiny", model_type)
    module = first_token_classifier(folder, 5).eval()
    plain = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    ids = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]])
    mask = (ids != 0).long()
    whole = plain(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
    torch.testing.assert_close(module(ids, mask), module.classifier(whole))


def test_gradients_reach_every_parameter_that_the_first_token_uses(checkpoint: Path) -> None:
    module = first_token_classifier(checkpoint, 5)
    ids = torch.tensor([[2, 7, 8, 3]])
    module(ids, torch.ones_like(ids)).sum().backward()
    without = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    # a key's bias moves all scores of a query alike, which the softmax does not see
    assert [name for name in without if "key.bias" not in name] == []
