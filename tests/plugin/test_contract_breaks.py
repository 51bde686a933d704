"""Each line of the contract catches a backbone that breaks it, and says which line and what to do.

The contract runs as an author runs it: pytest in a process of its own, on a file of his.
"""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from toxbench.testing import BackboneContract, write_checkpoint

PREAMBLE = '''
import random, time
from pathlib import Path
import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel
from toxbench import Backbone
from toxbench.testing import BackboneContract

CHECKPOINT = Path({checkpoint!r})


class Plain(nn.Module):
    """A backbone that keeps the contract; the others change one thing."""

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
'''

# Name -> (what it breaks, source, test that fails, words of its message). A module alone is enough
# where only the module is broken.
MODULES = {
    "OneLogit": ("def forward(self, **k):\n        return super().forward(**k)[:, :1]",
                 "shape_batch_by_label", "shape"),
    "Squeezed": ("def forward(self, **k):\n        return super().forward(**k).squeeze()",
                 "shape_batch_by_label", "shape"),
    "Half": ("def __init__(self, labels):\n        super().__init__(labels)\n"
             "        self.body.half()",
             "float32", "dtype"),
    "OwnType": ("def forward(self, **k):\n        x = super().forward(**k)\n"
                "        places = torch.arange(len(x))\n"
                "        return torch.zeros(x.shape).index_add_(0, places, x)",
                "float32", "fails under autocast"),
    "Cancels": ("def forward(self, **k):\n        return (super().forward(**k) + 1e4) - 1e4",
                "float32", "logits change by"),
    "Infinite": ("def forward(self, **k):\n        return super().forward(**k) / 0",
                 "float32", "not finite"),
    "Numpy": ("def __init__(self, labels):\n        super().__init__(labels)\n"
              "        self.classifier.weight.data += np.random.rand()",
              "same_seed", "determinism"),
    "Noisy": ("def forward(self, **k):\n        return super().forward(**k) + "
              "(random.random() if self.training else 0)",
              "same_seed", "determinism"),
    "Reseeds": ("def __init__(self, labels):\n        torch.manual_seed(7)\n"
                "        super().__init__(labels)",
                "another_seed", "determinism"),
    "AlwaysDrops": ("def encode(self, **k):\n"
                    "        return nn.functional.dropout(super().encode(**k))",
                    "eval_mode", "determinism"),
    "Forgets": ("def __init__(self, labels):\n        super().__init__(labels)\n"
                "        self.register_buffer('mean', torch.zeros(16), persistent=False)\n"
                "    def encode(self, **k):\n        x = super().encode(**k)\n"
                "        if self.training:\n            self.mean += x.detach().mean(0)\n"
                "        return x - self.mean",
                "saved_model", "save and load"),
    "Hidden": ("def __init__(self, labels):\n        super().__init__(labels)\n"
               "        self.more = [nn.Linear(16, 16)]\n"
               "    def encode(self, **k):\n        return self.more[0](super().encode(**k))",
               "saved_model", "save and load"),
    "Extra": ("def get_extra_state(self):\n        return {'steps': 3}\n"
              "    def set_extra_state(self, state):\n        pass",
              "saved_model", "_extra_state is no tensor"),
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
               "order_of_the_batch", "batch order"),
    "BatchNorm": ("def encode(self, **k):\n        x = super().encode(**k)\n"
                  "        return x - x.mean(0)",
                  "order_of_the_batch", "cut in two"),
    "Scaled": ("def __init__(self, labels):\n        super().__init__(labels)\n"
               "        self.fc = nn.Linear(16, 16)\n"
               "    def encode(self, **k):\n        return self.fc(super().encode(**k))",
               "head_is_what_is_new", "fc.bias, fc.weight"),
}  # fmt: skip

# What is broken outside the module.
CLASSES = {
    "Misnamed": ("class TestMisnamed(Contract):\n    head = ('classifer',)",
                 "head_is_what_is_new", "it has body, classifier"),
    "HalfNamed": ("class TestHalfNamed(Contract):\n    head = ('classifier', 'fc')",
                  "head_is_what_is_new", "no trainable fc"),
    "NoPad": ("class NoPad(Toy):\n    def tokenizer(self, weights):\n"
              "        made = super().tokenizer(weights)\n        made.pad_token = None\n"
              "        return made\n\n\nclass TestNoPad(Contract):\n    kind = NoPad",
              "tokenizer_cuts", "pad_token"),
    "NoCut": ("class NoCut(Toy):\n    def tokenizer(self, weights):\n"
              "        made = super().tokenizer(weights)\n"
              "        class Whole:\n            pad_token_id = 0\n"
              "            def __call__(self, texts, **k):\n                return made(texts)\n"
              "        return Whole()\n\n\nclass TestNoCut(Contract):\n    kind = NoCut",
              "tokenizer_cuts", "max_length"),
    "Idle": ("class TestIdle(Contract):\n    unreached = {'body.*.weight': 'no reason'}",
             "gradients_reach", "take it out of `unreached`"),
    "NoFixture": ("class TestNoFixture(BackboneContract):\n    pass",
                  "eval_mode", "write a fixture `backbone`"),
}  # fmt: skip
CASES = {**MODULES, **CLASSES}

# What is broken and named with a reason passes.
EXCUSED = {
    "ExcusedUnused": ("unreached = {'*.spare': 'for later'}", "UnusedToy", "gradients_reach"),
    "ExcusedScaled": ("new_in_body = {'fc.*': 'small'}", "ScaledToy", "head_is_what_is_new"),
}
LINES = [name for name in vars(BackboneContract) if name.startswith("test_")]


def source(checkpoint: Path) -> str:
    parts = [PREAMBLE.format(checkpoint=str(checkpoint))]
    for name, (body, _, _) in MODULES.items():
        parts.append(
            f"class {name}(Plain):\n    {body}\n\n\nclass {name}Toy(Toy):\n    make = {name}\n\n\n"
            f"class Test{name}(Contract):\n    kind = {name}Toy\n"
        )
    parts.extend(body for body, _, _ in CLASSES.values())
    for name, (reason, kind, _) in EXCUSED.items():
        parts.append(f"class Test{name}(Contract):\n    kind = {kind}\n    {reason}\n")
    return "\n\n".join(parts)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of them: of the plain one all lines, of a broken one the line it breaks."""
    folder = tmp_path_factory.mktemp("author")
    checkpoint = write_checkpoint(folder / "tiny", "bert")
    (folder / "test_toys.py").write_text(source(checkpoint), encoding="utf-8")
    lines = [f"TestPlain::{line}" for line in LINES]
    one = {name: test for name, (_, test, _) in CASES.items()}
    one |= {name: test for name, (_, _, test) in EXCUSED.items()}
    for name, test in one.items():
        lines.extend(f"Test{name}::{line}" for line in LINES if test in line)
    tests = [f"test_toys.py::{line}" for line in lines]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA", *tests],
        cwd=folder, env={**os.environ, "COLUMNS": "1000"}, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip
    return done.stdout


@cache
def outcomes(said: str) -> dict[tuple[str, str], str]:
    """Class and test -> the summary's line."""
    found = re.findall(r"^((?:PASSED|FAILED|ERROR) test_toys.py::Test(\w+)::(\w+).*)$", said, re.M)
    return {(owner, test): line for line, owner, test in found}


def test_a_backbone_that_keeps_the_contract_passes_every_line(said: str) -> None:
    lines = {test: line for (owner, test), line in outcomes(said).items() if owner == "Plain"}
    assert set(lines) == set(LINES)
    assert [line for line in lines.values() if not line.startswith("PASSED")] == []


@pytest.mark.parametrize("name", CASES)
def test_a_broken_backbone_is_told_which_line_and_what_to_do(said: str, name: str) -> None:
    _, _, words = CASES[name]
    (line,) = (at for (owner, _), at in outcomes(said).items() if owner == name)
    assert line.startswith(("FAILED", "ERROR")), line
    assert words in line
    assert "the contract's" in line
    assert "What to do: " in line


@pytest.mark.parametrize("name", EXCUSED)
def test_an_exception_that_is_named_passes(said: str, name: str) -> None:
    (line,) = (at for (owner, _), at in outcomes(said).items() if owner == name)
    assert line.startswith("PASSED"), line


def test_every_line_is_broken_by_something() -> None:
    assert [line for line in LINES if not any(test in line for _, test, _ in CASES.values())] == []
