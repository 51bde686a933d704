"""Backbone modules that compute only the first token in the last layer."""

from pathlib import Path

import pytest
import torch
from support import build_classifier, write_checkpoint
from torch import nn
from transformers import AutoModelForSequenceClassification

from toxbench import Backbone


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "roberta"])
def test_shortcut_keeps_hugging_face_logits_and_gradients(tmp_path: Path, model_type: str) -> None:
    folder = write_checkpoint(tmp_path / "tiny", model_type)
    torch.manual_seed(0)
    module = Backbone(name="tiny", checkpoint="tiny/tiny").build(folder, 5).eval()
    plain = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=5).eval()
    plain.load_state_dict(module.state_dict())
    ids = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]])
    mask = (ids != 0).long()
    logits = [model(input_ids=ids, attention_mask=mask).logits for model in (module, plain)]
    torch.testing.assert_close(*logits)
    for values in logits:
        values.square().sum().backward()
    shapes = []
    last = next(
        child for child in reversed(list(module.modules())) if isinstance(child, nn.LayerNorm)
    )
    last.register_forward_hook(lambda _, inputs, output: shapes.append(output.shape[1]))
    module(input_ids=ids, attention_mask=mask)
    assert shapes == [1]
    parameters = zip(module.named_parameters(), plain.parameters(), strict=True)
    for (name, parameter), expected in parameters:
        torch.testing.assert_close(parameter.grad, expected.grad, msg=name)


def test_gradients_reach_all_parameters(checkpoint: Path) -> None:
    module = build_classifier(checkpoint, 5)
    ids = torch.tensor([[2, 7, 8, 3]])
    module(ids, torch.ones_like(ids)).logits.sum().backward()
    names = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    # the bias of a key adds the same to all scores of a query, which the softmax ignores
    assert [name for name in names if "key.bias" not in name] == []
