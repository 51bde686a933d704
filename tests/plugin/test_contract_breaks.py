"""Every contract test fails for a backbone that breaks it, with the requirement and the remedy.

The contract runs as for a plugin author: pytest in a subprocess, on a test file.
"""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from support import TIMEOUT

from toxbench.testing import BackboneContract, write_checkpoint

pytestmark = pytest.mark.slow

PREAMBLE = '''
import random, time
from pathlib import Path
import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, GPT2Config, GPT2ForSequenceClassification
from toxbench import Backbone
from toxbench.testing import BackboneContract

CHECKPOINT = Path({checkpoint!r})


class Plain(nn.Module):
    """A module that fulfils the contract; each subclass breaks one requirement."""

    def __init__(self, labels):
        super().__init__()
        self.body = AutoModel.from_pretrained(CHECKPOINT, add_pooling_layer=False)
        self.classifier = nn.Linear(16, labels)

    def encode(self, input_ids, attention_mask):
        return self.body(input_ids, attention_mask).last_hidden_state[:, 0]

    def forward(self, input_ids, attention_mask):
        return self.classifier(self.encode(input_ids=input_ids, attention_mask=attention_mask))


class Toy(Backbone):
    make = Plain

    def build(self, weights, label_count):
        return self.make(label_count)


class Contract(BackboneContract):
    kind = Toy
    head = ("classifier",)

    @pytest.fixture
    def backbone(self):
        return self.kind(name="toy", checkpoint="a/b", head=self.head)

    @pytest.fixture
    def checkpoint(self):
        return CHECKPOINT


class TestPlain(Contract):
    pass


class Decoder(Toy):
    """Finds the last token of a row by a padding token that is not the tokenizer's."""

    pad_token_id = None

    def build(self, weights, label_count):
        return GPT2ForSequenceClassification(GPT2Config(
            vocab_size=400, n_embd=16, n_layer=1, n_head=2, num_labels=label_count,
            pad_token_id=self.pad_token_id,
        ))
'''

# Name -> (body of the subclass of Plain, part of the failing test's name, part of its message).
MODULES = {
    "OneLogit": ("def forward(self, **k):\n        return super().forward(**k)[:, :1]",
                 "have_shape", "shape"),
    "Squeezed": ("def forward(self, **k):\n        return super().forward(**k).squeeze()",
                 "have_shape", "shape"),
    "Half": ("def __init__(self, labels):\n        super().__init__(labels)\n"
             "        self.body.half()",
             "dtype_is_float32", "dtype"),
    "OwnType": ("def forward(self, **k):\n        x = super().forward(**k)\n"
                "        places = torch.arange(len(x))\n"
                "        return torch.zeros(x.shape).index_add_(0, places, x)",
                "dtype_is_float32", "fails under autocast"),
    "Cancels": ("def forward(self, **k):\n        return (super().forward(**k) + 1e4) - 1e4",
                "dtype_is_float32", "logits change by"),
    "Infinite": ("def forward(self, **k):\n        return super().forward(**k) / 0",
                 "dtype_is_float32", "not finite"),
    "Numpy": ("def __init__(self, labels):\n        super().__init__(labels)\n"
              "        self.classifier.weight.data += np.random.rand()",
              "training_is_deterministic", "determinism"),
    "Noisy": ("def forward(self, **k):\n        return super().forward(**k) + "
              "(random.random() if self.training else 0)",
              "training_is_deterministic", "determinism"),
    "Reseeds": ("def __init__(self, labels):\n        torch.manual_seed(7)\n"
                "        super().__init__(labels)",
                "reset_the_seed", "determinism"),
    "AlwaysDrops": ("def encode(self, **k):\n"
                    "        return nn.functional.dropout(super().encode(**k))",
                    "eval_mode", "determinism"),
    "Forgets": ("def __init__(self, labels):\n        super().__init__(labels)\n"
                "        self.register_buffer('mean', torch.zeros(16), persistent=False)\n"
                "    def encode(self, **k):\n        x = super().encode(**k)\n"
                "        if self.training:\n            self.mean += x.detach().mean(0)\n"
                "        return x - self.mean",
                "saved_state", "save and load"),
    "Hidden": ("def __init__(self, labels):\n        super().__init__(labels)\n"
               "        self.more = [nn.Linear(16, 16)]\n"
               "    def encode(self, **k):\n        return self.more[0](super().encode(**k))",
               "saved_state", "save and load"),
    "Extra": ("def get_extra_state(self):\n        return {'steps': 3}\n"
              "    def set_extra_state(self, state):\n        pass",
              "saved_state", "_extra_state is not a tensor"),
    "Detached": ("def encode(self, **k):\n        return super().encode(**k).detach()",
                 "gradients_reach", "and 32 more"),
    "Unused": ("def __init__(self, labels):\n        super().__init__(labels)\n"
               "        self.classifier.spare = nn.Parameter(torch.ones(3))",
               "gradients_reach", "classifier.spare"),
    "Zeroed": ("def __init__(self, labels):\n        super().__init__(labels)\n"
               "        self.classifier.spare = nn.Parameter(torch.ones(1))\n"
               "    def forward(self, **k):\n"
               "        return super().forward(**k) + 0 * self.classifier.spare",
               "gradients_reach", "classifier.spare"),
    "Unmasked": ("def encode(self, input_ids, attention_mask):\n"
                 "        return self.body(input_ids).last_hidden_state[:, 0]",
                 "padding", "attention_mask"),
    "MeanOfAll": ("def encode(self, input_ids, attention_mask):\n"
                  "        return self.body(input_ids, attention_mask).last_hidden_state.mean(1)",
                  "padding", "attention_mask"),
    "Places": ("def forward(self, **k):\n        x = super().forward(**k)\n"
               "        return x + torch.arange(len(x))[:, None]",
               "batch_order", "batch order"),
    "BatchNorm": ("def encode(self, **k):\n        x = super().encode(**k)\n"
                  "        return x - x.mean(0)",
                  "batch_order", "split in two"),
    "Scaled": ("def __init__(self, labels):\n        super().__init__(labels)\n"
               "        self.fc = nn.Linear(16, 16)\n"
               "    def encode(self, **k):\n        return self.fc(super().encode(**k))",
               "head_names", "fc.bias, fc.weight"),
    "Shifted": ("def forward(self, **k):\n        return super().forward(**k) + 1",
                "last_layer", "forward changes the output"),
}  # fmt: skip

# Name -> (source of the test class, part of the failing test's name, part of its message).
CLASSES = {
    "Misnamed": ("class TestMisnamed(Contract):\n    head = ('classifer',)",
                 "head_names", "it has body, classifier"),
    "HalfNamed": ("class TestHalfNamed(Contract):\n    head = ('classifier', 'fc')",
                  "head_names", "no trainable fc"),
    "NoPad": ("class NoPad(Toy):\n    def tokenizer(self, weights):\n"
              "        tokenizer = super().tokenizer(weights)\n"
              "        tokenizer.pad_token = None\n        return tokenizer\n"
              "\n\nclass TestNoPad(Contract):\n    kind = NoPad",
              "tokenizer_truncates", "pad_token"),
    "NoCut": ("class NoCut(Toy):\n    def tokenizer(self, weights):\n"
              "        tokenizer = super().tokenizer(weights)\n"
              "        class Untruncated:\n            pad_token_id = 0\n"
              "            def __call__(self, texts, **k):\n"
              "                return tokenizer(texts)\n"
              "        return Untruncated()\n\n\nclass TestNoCut(Contract):\n    kind = NoCut",
              "tokenizer_truncates", "max_length"),
    "NoPadId": ("class TestNoPadId(Contract):\n    kind = Decoder", "padding_does", "pad_token_id"),
    "OtherPadId": ("class OtherPadId(Decoder):\n    pad_token_id = 7\n\n\n"
                   "class TestOtherPadId(Contract):\n    kind = OtherPadId",
                   "padding_does", "pad_token_id"),
    "Idle": ("class TestIdle(Contract):\n    without_gradient = {'body.*.weight': 'no reason'}",
             "gradients_reach", "remove it from `without_gradient`"),
    "NoLast": ("class TestNoLast(Contract):\n    labels = 3\n    head = ('body',)",
               "last_layer", "needs an nn.Linear in the head"),
    "NoFixture": ("class TestNoFixture(BackboneContract):\n    pass",
                  "eval_mode", "the fixture `backbone` is missing"),
}  # fmt: skip
CASES = {**MODULES, **CLASSES}

# Exceptions with a reason: name -> (attribute, class of the backbone, part of the test's name).
EXCEPTIONS = {
    "ExcusedUnused": (
        "without_gradient = {'*.spare': 'for later'}",
        "UnusedToy",
        "gradients_reach",
    ),
    "ExcusedScaled": ("new_in_body = {'fc.*': 'small'}", "ScaledToy", "head_names"),
}
TESTS = [name for name in vars(BackboneContract) if name.startswith("test_")]


def source(checkpoint: Path) -> str:
    parts = [PREAMBLE.format(checkpoint=str(checkpoint))]
    for name, (body, _, _) in MODULES.items():
        parts.append(
            f"class {name}(Plain):\n    {body}\n\n\nclass {name}Toy(Toy):\n    make = {name}\n\n\n"
            f"class Test{name}(Contract):\n    kind = {name}Toy\n"
        )
    parts.extend(body for body, _, _ in CLASSES.values())
    for name, (attribute, kind, _) in EXCEPTIONS.items():
        parts.append(f"class Test{name}(Contract):\n    kind = {kind}\n    {attribute}\n")
    return "\n\n".join(parts)


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Pytest's output: all tests of Plain, and for each broken class the test that it breaks."""
    folder = tmp_path_factory.mktemp("author")
    checkpoint = write_checkpoint(folder / "tiny", "bert")
    (folder / "test_toys.py").write_text(source(checkpoint), encoding="utf-8")
    selected = [f"TestPlain::{test}" for test in TESTS]
    patterns = {name: pattern for name, (_, pattern, _) in CASES.items()}
    patterns |= {name: pattern for name, (_, _, pattern) in EXCEPTIONS.items()}
    for name, pattern in patterns.items():
        selected.extend(f"Test{name}::{test}" for test in TESTS if pattern in test)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA",
         *(f"test_toys.py::{test}" for test in selected)],
        cwd=folder, env={**os.environ, "COLUMNS": "1000"}, capture_output=True, text=True,
        check=False, timeout=TIMEOUT,
    )  # fmt: skip
    return result.stdout


@cache
def outcomes(summary: str) -> dict[tuple[str, str], str]:
    """Return (class, test) -> line of pytest's summary."""
    pattern = r"^((?:PASSED|FAILED|ERROR) test_toys.py::Test(\w+)::(\w+).*)$"
    return {(name, test): line for line, name, test in re.findall(pattern, summary, re.M)}


def outcome_of(summary: str, name: str) -> str:
    (line,) = (line for (owner, _), line in outcomes(summary).items() if owner == name)
    return line


def test_correct_backbone_passes_all_tests(summary: str) -> None:
    lines = {test: line for (name, test), line in outcomes(summary).items() if name == "Plain"}
    assert set(lines) == set(TESTS)
    assert [line for line in lines.values() if not line.startswith("PASSED")] == []


@pytest.mark.parametrize("name", CASES)
def test_broken_backbone_fails_with_a_remedy(summary: str, name: str) -> None:
    _, _, expected = CASES[name]
    line = outcome_of(summary, name)
    assert line.startswith(("FAILED", "ERROR")), line
    assert expected in line
    assert "breaks the contract" in line
    assert "What to do: " in line


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_listed_exception_passes(summary: str, name: str) -> None:
    line = outcome_of(summary, name)
    assert line.startswith("PASSED"), line


def test_every_contract_test_has_a_failing_case() -> None:
    patterns = [pattern for _, pattern, _ in CASES.values()]
    assert [test for test in TESTS if not any(pattern in test for pattern in patterns)] == []
