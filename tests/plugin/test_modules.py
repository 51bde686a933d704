"""The head without a pooler."""

from pathlib import Path

import pytest
import torch
from support import write_checkpoint
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification

from toxbench import Backbone, first_token_classifier


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_finishing_the_first_token_only_changes_no_logit(tmp_path: Path, model_type: str) -> None:
    folder = write_checkpoint(tmp_path / "tiny", model_type)
    module = first_token_classifier(folder, 5).eval()
    plain = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    ids = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]])
    mask = (ids != 0).long()
    whole = plain(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
    torch.testing.assert_close(module(ids, mask), module.classifier(whole))


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "roberta"])
def test_hugging_faces_own_classifiers_keep_their_logits_and_gradients(
    tmp_path: Path, model_type: str
) -> None:
    folder = write_checkpoint(tmp_path / "tiny", model_type)
    torch.manual_seed(0)
    module = Backbone(name="tiny", checkpoint="tiny/tiny").build(folder, 5).eval()
    plain = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=5).eval()
    plain.load_state_dict(module.state_dict())
    ids = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]])
    mask = (ids != 0).long()
    logits = [built(input_ids=ids, attention_mask=mask).logits for built in (module, plain)]
    torch.testing.assert_close(*logits)
    for found in logits:
        found.square().sum().backward()
    shapes = []
    last = next(
        child for child in reversed(list(module.modules())) if isinstance(child, nn.LayerNorm)
    )
    last.register_forward_hook(lambda _, inputs, output: shapes.append(output.shape[1]))
    module(input_ids=ids, attention_mask=mask)
    assert shapes == [1]
    for (name, own), other in zip(module.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, msg=name)


def test_gradients_reach_every_parameter_that_the_first_token_uses(checkpoint: Path) -> None:
    module = first_token_classifier(checkpoint, 5)
    ids = torch.tensor([[2, 7, 8, 3]])
    module(ids, torch.ones_like(ids)).sum().backward()
    without = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    # a key's bias moves all scores of a query alike, which the softmax does not see
    assert [name for name in without if "key.bias" not in name] == []
