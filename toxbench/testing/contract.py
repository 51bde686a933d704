"""The contract of a backbone as a class of tests that plugin authors subclass."""

from collections.abc import Mapping
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path
from typing import ClassVar, NoReturn

import pytest
import torch
from torch import nn

from toxbench.errors import PluginError
from toxbench.plugin.contracts import Backbone
from toxbench.settings import TrainSettings
from toxbench.testing import modules
from toxbench.testing.modules import TokenRows
from toxbench.training.head import Head

TEXTS = (
    "you fool",
    "thank you and good night to all of you, again and again",
    "what a film! the second half is not as bad as they say, is it",
    "no",
    "I would not watch it 2 times",
)


class BackboneContract:
    """Tests of the properties that toxbench's training loop relies on, one for each.

    Subclass it in a test file and define the two fixtures `backbone` and `checkpoint`. The message
    of a failed test names the property, the problem and the remedy.

    Attributes:
        labels: number of labels that the module is built for.
        without_gradient: trainable parameters that get no gradient, on purpose: a pattern of their
            names, as in ``fnmatch``, and the reason. Frozen parameters need not be listed.
        new_in_body: parameters that `Backbone.build` initializes at random and that learn at the
            body's rate, on purpose: pattern and reason, as above. An example is a pooler that is
            missing in the pretrained checkpoint.
    """

    labels: ClassVar[int] = 3
    without_gradient: ClassVar[Mapping[str, str]] = {}
    new_in_body: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture
    def backbone(self) -> Backbone:
        """The backbone to test. Every subclass overrides this fixture."""
        fail("fixtures", "the fixture `backbone` is missing", "write one that returns the backbone")

    @pytest.fixture
    def checkpoint(self) -> Path:
        """A folder with a tiny checkpoint. Every subclass overrides this fixture."""
        remedy = "write one that returns a folder; toxbench.testing.write_checkpoint makes one"
        fail("fixtures", "the fixture `checkpoint` is missing", remedy)

    @pytest.fixture
    def module(self, backbone: Backbone, checkpoint: Path) -> nn.Module:
        """The module that `Backbone.build` returns, in eval mode."""
        return modules.build_module(backbone, checkpoint, self.labels).eval()

    @pytest.fixture
    def rows(self, backbone: Backbone, checkpoint: Path) -> TokenRows:
        """Token ids of texts of different lengths."""
        return modules.tokenize(backbone, checkpoint, TEXTS)

    def test_tokenizer_truncates_and_pads(self, backbone: Backbone, checkpoint: Path) -> None:
        """The tokenizer truncates to max_length and has a pad token."""
        tokenizer = backbone.tokenizer(checkpoint)
        if tokenizer.pad_token_id is None:
            fail(
                "tokenizer",
                "it has no pad token, so batches would be padded with token 0",
                "set tokenizer.pad_token in Backbone.tokenizer",
            )
        ids = tokenizer([" ".join(TEXTS)], truncation=True, max_length=8)["input_ids"]
        if len(ids[0]) != 8:
            fail(
                "tokenizer",
                f"a long text has {len(ids[0])} tokens with max_length=8",
                "return a Hugging Face tokenizer, or one that accepts truncation and max_length",
            )

    def test_logits_have_shape_batch_by_label(
        self, backbone: Backbone, checkpoint: Path, rows: TokenRows
    ) -> None:
        """The logits are ``[batch, label]``, also for one row and for one label."""
        for labels in (1, self.labels):
            module = modules.build_module(backbone, checkpoint, labels).eval()
            for batch in (rows, rows[:1]):
                try:
                    modules.compute_logits(module, batch, labels)
                except PluginError as error:
                    fail("shape", str(error), "let the last layer be Linear(size, label_count)")

    def test_dtype_is_float32_and_allows_bf16_autocast(
        self, module: nn.Module, rows: TokenRows
    ) -> None:
        """Trainable parameters are float32; autocast to bf16 gives nearly the same logits."""
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and parameter.dtype != torch.float32:
                fail(
                    "dtype",
                    f"{name} is {parameter.dtype}, in which small steps are lost",
                    "pass dtype=torch.float32 to from_pretrained; autocast converts to bf16",
                )
        float32 = modules.compute_logits(module, rows, self.labels)
        with torch.autocast("cpu", torch.bfloat16):
            try:
                bf16 = modules.compute_logits(module, rows, self.labels)
            except RuntimeError as error:
                remedy = "create tensors with the dtype of another tensor: x.new_zeros(...)"
                fail("dtype", f"forward fails under autocast to bf16: {error}", remedy)
        if not torch.isfinite(bf16).all() or not torch.isfinite(float32).all():
            fail("dtype", "logits are not finite", "look for a division or a mask of -inf")
        if modules.max_difference(float32, bf16) > 0.1 * max(1.0, float(float32.abs().max())):
            fail(
                "dtype",
                f"logits change by {modules.max_difference(float32, bf16):.2g} under autocast to "
                "bf16",
                "compute sensitive parts, such as sums over many tokens, with .float()",
            )

    def test_training_is_deterministic(
        self, backbone: Backbone, checkpoint: Path, rows: TokenRows
    ) -> None:
        """Building and training twice with one seed gives the same parameters."""
        first, second = (
            modules.train_module(backbone, checkpoint, rows, self.labels) for _ in range(2)
        )
        for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
            if not torch.equal(a, b):
                fail(
                    "determinism",
                    f"{name} differs between two trainings with the same seed",
                    "use torch's generator for all random numbers, not random, numpy or the time",
                )

    def test_build_does_not_reset_the_seed(self, backbone: Backbone, checkpoint: Path) -> None:
        """After a build, torch's generator depends on the seed that the run has set."""
        first, second = (
            modules.generator_state_after_build(backbone, checkpoint, seed) for seed in (0, 1)
        )
        if first == second:
            fail(
                "determinism",
                "after build, torch's generator is the same for every seed",
                "remove torch.manual_seed from build; toxbench seeds before it",
            )

    def test_eval_mode_is_deterministic(self, module: nn.Module, rows: TokenRows) -> None:
        """In eval mode the same batch has the same logits twice."""
        first, second = (modules.compute_logits(module, rows, self.labels) for _ in range(2))
        if not torch.equal(first, second):
            fail(
                "determinism",
                f"logits in eval mode change by {modules.max_difference(first, second):.2g}",
                "use nn.Dropout, or pass training=self.training to functional.dropout",
            )

    def test_saved_state_is_restored(
        self, backbone: Backbone, checkpoint: Path, rows: TokenRows, tmp_path: Path
    ) -> None:
        """The state dict holds everything that training changes, and loads from a file."""
        trained = modules.train_module(backbone, checkpoint, rows, self.labels)
        restored = modules.build_module(backbone, checkpoint, self.labels, seed=1).eval()
        try:
            modules.copy_state_through_file(trained, restored, tmp_path / "model.safetensors")
        except (RuntimeError, TypeError, ValueError) as error:
            remedy = "let the state dict hold only tensors, with the same names for every seed"
            fail("save and load", f"the state dict cannot be restored: {error}", remedy)
        before, after = (
            modules.compute_logits(module, rows, self.labels) for module in (trained, restored)
        )
        remedy = "store everything that training changes in parameters or persistent buffers"
        _check_same("save and load", before, after, "after saving", remedy)

    def test_gradients_reach_every_parameter(
        self, backbone: Backbone, checkpoint: Path, rows: TokenRows
    ) -> None:
        """Every parameter that is not frozen or in ``without_gradient`` gets a gradient."""
        names = modules.find_parameters_without_gradient(backbone, checkpoint, rows, self.labels)
        expected = {
            pattern: {name for name in names if fnmatch(name, pattern)}
            for pattern in self.without_gradient
        }
        unexpected = sorted(names.difference(*expected.values()))
        if unexpected:
            fail(
                "gradients",
                f"no gradient reaches {_shortened(unexpected)}",
                "use them in forward (a detach or torch.no_grad stops gradients), leave them out "
                "of the module, freeze them, or list them in `without_gradient` with the reason",
            )
        unused = sorted(pattern for pattern, matches in expected.items() if not matches)
        if unused:
            remedy = "remove it from `without_gradient`"
            problem = f"gradients reach, or the module lacks, {_shortened(unused)}"
            fail("gradients", problem, remedy)

    def test_padding_does_not_change_logits(self, module: nn.Module, rows: TokenRows) -> None:
        """A row's logits are the same alone, next to a longer one, and padded to max_length."""
        remedy = (
            "pass attention_mask to every layer that reads other tokens, compute means only over "
            "tokens where it is 1, and set pad_token_id in the configuration of a decoder to the "
            "tokenizer's"
        )
        single_rows = [rows[row : row + 1] for row in range(len(rows))]
        unpadded = torch.cat(
            [modules.compute_logits(module, row, self.labels) for row in single_rows]
        )
        for width in (rows.max_tokens, TrainSettings().max_length):
            try:
                padded = modules.compute_logits(module, rows, self.labels, width)
            except ValueError as error:  # of a decoder of transformers without pad_token_id
                fail("padding", str(error), remedy)
            change = f"when rows are padded to {width} tokens"
            _check_same("padding", unpadded, padded, change, remedy)

    def test_batch_order_does_not_change_logits(self, module: nn.Module, rows: TokenRows) -> None:
        """A row's logits depend neither on its position nor on the other rows."""
        expected, width = modules.compute_logits(module, rows, self.labels), rows.max_tokens
        reversed_logits = modules.compute_logits(module, rows[::-1], self.labels).flip(0)
        halves = [
            modules.compute_logits(module, half, self.labels, width)
            for half in (rows[:2], rows[2:])
        ]
        for change, logits in (("reversed", reversed_logits), ("split in two", torch.cat(halves))):
            _check_same(
                "batch order",
                expected,
                logits,
                f"when the batch is {change}",
                "compute along tokens and features only; normalize with LayerNorm, not with the "
                "batch's statistics",
            )

    def test_head_names_the_new_parameters(self, backbone: Backbone, checkpoint: Path) -> None:
        """``Backbone.head`` names the random parameters of `build`, and no missing attributes."""
        module = modules.build_module(backbone, checkpoint, self.labels)
        trainable = [name for name, p in module.named_parameters() if p.requires_grad]
        tops = sorted({name.partition(".")[0] for name in trainable})
        missing = [
            part for part in backbone.head if not any(map(Head((part,)).contains, trainable))
        ]
        default = next(field.default for field in fields(backbone) if field.name == "head")
        if missing == [*backbone.head] or (missing and backbone.head != default):
            fail(
                "head",
                f"the module has no trainable {' or '.join(sorted(missing))}",
                "name its new layers in Backbone(head=...), by their paths; at the top it has "
                f"{', '.join(tops)}",
            )
        new_body_names = sorted(
            name
            for name in modules.find_random_parameters(backbone, checkpoint, self.labels)
            if not Head(backbone.head).contains(name)
            and not any(fnmatch(name, pattern) for pattern in self.new_in_body)
        )
        if new_body_names:
            fail(
                "head",
                f"{_shortened(new_body_names)} is new, but would learn at the rate of the "
                "pretrained body",
                "add its top-level attribute to Backbone(head=...), or its name to `new_in_body` "
                "with the reason",
            )

    def test_last_layer_returns_the_logits(
        self, backbone: Backbone, module: nn.Module, rows: TokenRows
    ) -> None:
        """The output of ``Backbone.last_layer`` is the logits, so that a probe can start it."""
        if backbone.defaults.head_init != "probe":
            return
        remedy = (
            "name the nn.Linear that returns the logits in Backbone(last_layer=...), or set "
            "head_init='random' in Backbone(defaults=...)"
        )
        try:
            expected, logits = modules.compute_constant_logits(backbone, module, rows, self.labels)
        except PluginError as error:
            fail("last layer", str(error), remedy)
        if modules.max_difference(expected.expand_as(logits), logits) > 1e-5:
            fail("last layer", "forward changes the output of the head's last layer", remedy)


def fail(requirement: str, problem: str, remedy: str) -> NoReturn:
    """Fail the running test with the broken requirement, the problem and the remedy."""
    pytest.fail(
        f"the backbone breaks the contract ({requirement}): {problem}. What to do: {remedy}.",
        pytrace=False,
    )


def _check_same(
    requirement: str, expected: torch.Tensor, logits: torch.Tensor, change: str, remedy: str
) -> None:
    """Fail if logits differ by more than rounding."""
    difference = modules.max_difference(expected, logits)
    if difference > modules.rounding_tolerance(expected):
        fail(requirement, f"logits change by {difference:.2g} {change}", remedy)


def _shortened(names: list[str]) -> str:
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{rest}"
