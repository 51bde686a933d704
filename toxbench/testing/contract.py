"""The contract of a backbone as a class of tests that plugin authors subclass."""

from collections.abc import Mapping
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NoReturn

import pytest

from toxbench.errors import PluginError
from toxbench.plugin.contracts import Backbone
from toxbench.settings import TrainSettings
from toxbench.testing import modules

if TYPE_CHECKING:
    import torch
    from torch import nn

TEXTS = (
    "you fool",
    "thank you and good night to all of you, again and again",
    "what a film! the second half is not as bad as they say, is it",
    "no",
    "I would not watch it 2 times",
)
_DEFAULT_HEAD = next(field.default for field in fields(Backbone) if field.name == "head")


class BackboneContract:
    """What toxbench's training loop relies on; each test is one line of the contract.

    Subclass it in a test file, with two fixtures, and pytest runs every line. A line that is
    broken says which one, what was found, and what to do.

    Attributes:
        labels: how many labels the module is built for.
        unreached: parameters that no gradient reaches, for a reason: a pattern of their names, as
            in ``fnmatch``, and the reason. Frozen ones need not be named.
        new_in_body: parameters that `Backbone.build` draws at random and that learn at the body's
            rate nevertheless: the same, for a pooler that the pretraining had none of, say.
    """

    labels: ClassVar[int] = 3
    unreached: ClassVar[Mapping[str, str]] = {}
    new_in_body: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture
    def backbone(self) -> Backbone:
        """The backbone to test. Every subclass has a fixture of this name."""
        broken("fixtures", "there is no backbone to test", "write a fixture `backbone` for it")

    @pytest.fixture
    def checkpoint(self) -> Path:
        """A folder with a tiny checkpoint. Every subclass has a fixture of this name."""
        todo = "write a fixture `checkpoint`; toxbench.testing.write_checkpoint makes one"
        broken("fixtures", "there is no checkpoint to build from", todo)

    @pytest.fixture
    def module(self, backbone: Backbone, checkpoint: Path) -> "nn.Module":
        """The module as `Backbone.build` makes it, in eval mode."""
        return modules.built(backbone, checkpoint, self.labels).eval()

    @pytest.fixture
    def rows(self, backbone: Backbone, checkpoint: Path) -> "modules.Rows":
        """The token ids of some texts of different lengths."""
        return modules.tokenised(backbone, checkpoint, TEXTS)

    def test_tokenizer_cuts_and_pads(self, backbone: Backbone, checkpoint: Path) -> None:
        """The tokenizer cuts to max_length, and has a token to pad with."""
        tokenizer = backbone.tokenizer(checkpoint)
        if tokenizer.pad_token_id is None:
            broken(
                "tokenizer",
                "it has no pad token, so batches would be filled up with token 0",
                "set tokenizer.pad_token in Backbone.tokenizer",
            )
        ids = tokenizer([" ".join(TEXTS)], truncation=True, max_length=8)["input_ids"]
        if len(ids[0]) != 8:
            broken(
                "tokenizer",
                f"a long text has {len(ids[0])} tokens with max_length=8",
                "return a Hugging Face tokenizer, or one that takes truncation and max_length",
            )

    def test_logits_have_the_shape_batch_by_label(
        self, backbone: Backbone, checkpoint: Path, rows: "modules.Rows"
    ) -> None:
        """The logits are ``[batch, label]``, also of one row and for one label."""
        for labels in (1, self.labels):
            module = modules.built(backbone, checkpoint, labels).eval()
            for some in (rows, rows[:1]):
                try:
                    modules.logits(module, some, labels)
                except PluginError as error:
                    broken("shape", str(error), "let the last layer be Linear(size, label_count)")

    def test_numbers_are_float32_and_bf16_under_autocast(
        self, module: "nn.Module", rows: "modules.Rows"
    ) -> None:
        """What is trained is float32, and autocast to bf16 gives nearly the same logits."""
        import torch

        for name, parameter in module.named_parameters():
            if parameter.requires_grad and parameter.dtype != torch.float32:
                broken(
                    "dtype",
                    f"{name} is {parameter.dtype}; small steps would be lost in it",
                    "pass dtype=torch.float32 to from_pretrained; bf16 is autocast's business",
                )
        whole = modules.logits(module, rows, self.labels)
        with torch.autocast("cpu", torch.bfloat16):
            try:
                half = modules.logits(module, rows, self.labels)
            except RuntimeError as error:
                todo = "take the type of the other tensor where you make one: x.new_zeros(...)"
                broken("dtype", f"forward fails under autocast to bf16: {error}", todo)
        if not torch.isfinite(half).all() or not torch.isfinite(whole).all():
            broken("dtype", "logits are not finite", "look for a division or a mask of -inf")
        if modules.difference(whole, half) > 0.1 * max(1.0, float(whole.abs().max())):
            broken(
                "dtype",
                f"logits change by {modules.difference(whole, half):.2g} under autocast to bf16",
                "compute what needs it, such as sums over many tokens, with .float()",
            )

    def test_the_same_seed_gives_the_same_numbers(
        self, backbone: Backbone, checkpoint: Path, rows: "modules.Rows"
    ) -> None:
        """Building and training after one seed gives the same numbers twice."""
        first, second = (modules.trained(backbone, checkpoint, rows, self.labels) for _ in "12")
        for (name, one), other in zip(first.named_parameters(), second.parameters(), strict=True):
            if not _equal(one, other):
                broken(
                    "determinism",
                    f"{name} differs between two trainings with the same seed",
                    "draw from torch's own generator alone, not from random, numpy or the time",
                )

    def test_another_seed_draws_other_numbers(self, backbone: Backbone, checkpoint: Path) -> None:
        """Building leaves the seed alone that the run has set."""
        if modules.state_after(backbone, checkpoint, 0) == modules.state_after(
            backbone, checkpoint, 1
        ):
            broken(
                "determinism",
                "after build, torch's generator is the same for every seed",
                "take torch.manual_seed out of build; toxbench seeds before it",
            )

    def test_eval_mode_repeats_itself(self, module: "nn.Module", rows: "modules.Rows") -> None:
        """In eval mode the same batch has the same logits twice."""
        first, second = (modules.logits(module, rows, self.labels) for _ in "12")
        if not _equal(first, second):
            broken(
                "determinism",
                f"logits in eval mode change by {modules.difference(first, second):.2g}",
                "use nn.Dropout, or pass training=self.training to functional.dropout",
            )

    def test_a_saved_model_comes_back(
        self, backbone: Backbone, checkpoint: Path, rows: "modules.Rows", tmp_path: Path
    ) -> None:
        """Everything that training changes is in the state dict, and comes back from a file."""
        trained = modules.trained(backbone, checkpoint, rows, self.labels)
        again = modules.built(backbone, checkpoint, self.labels, seed=1).eval()
        try:
            modules.copy_through_file(trained, again, tmp_path / "model.safetensors")
        except (RuntimeError, TypeError, ValueError) as error:
            todo = "let the state dict hold tensors alone, with the same names for every seed"
            broken("save and load", f"the state dict does not come back: {error}", todo)
        before, after = (modules.logits(m, rows, self.labels) for m in (trained, again))
        if modules.difference(before, after) > modules.tolerance(before):
            broken(
                "save and load",
                f"logits change by {modules.difference(before, after):.2g} after saving",
                "keep what training changes in parameters or in persistent buffers",
            )

    def test_gradients_reach_every_parameter(
        self, backbone: Backbone, checkpoint: Path, rows: "modules.Rows"
    ) -> None:
        """Training moves every parameter that is not frozen, but for those in ``unreached``."""
        missed = modules.unreached(backbone, checkpoint, rows, self.labels)
        named = {p: [name for name in missed if fnmatch(name, p)] for p in self.unreached}
        rest = sorted(missed.difference(*named.values()))
        if rest:
            broken(
                "gradients",
                f"no gradient reaches {_some(rest)}",
                "use them in forward (a detach or torch.no_grad cuts gradients off), leave them "
                "out of the module, freeze them, or name them in `unreached` with the reason",
            )
        idle = sorted(pattern for pattern, names in named.items() if not names)
        if idle:
            todo = "take it out of `unreached`"
            broken("gradients", f"gradients do reach, or there is no, {_some(idle)}", todo)

    def test_padding_does_not_change_logits(
        self, module: "nn.Module", rows: "modules.Rows"
    ) -> None:
        """A row's logits are the same alone, beside a longer one, and padded to max_length."""
        import torch

        most = TrainSettings().max_length
        alone = torch.cat([modules.logits(module, rows[i : i + 1], self.labels) for i in rows.each])
        for width in (rows.longest, most):
            padded = modules.logits(module, rows, self.labels, width)
            if modules.difference(alone, padded) > modules.tolerance(alone):
                broken(
                    "padding",
                    f"logits change by {modules.difference(alone, padded):.2g} when rows are "
                    f"padded to {width} tokens",
                    "give attention_mask to every layer that looks at other tokens, and take "
                    "means over tokens where it is 1",
                )

    def test_the_order_of_the_batch_does_not_matter(
        self, module: "nn.Module", rows: "modules.Rows"
    ) -> None:
        """A row's logits depend neither on its place nor on the other rows."""
        import torch

        forward, width = modules.logits(module, rows, self.labels), rows.longest
        backward = modules.logits(module, rows[::-1], self.labels).flip(0)
        parts = [modules.logits(module, part, self.labels, width) for part in (rows[:2], rows[2:])]
        for what, other in (("reversed", backward), ("cut in two", torch.cat(parts))):
            if modules.difference(forward, other) > modules.tolerance(forward):
                broken(
                    "batch order",
                    f"logits change by {modules.difference(forward, other):.2g} when the batch "
                    f"is {what}",
                    "compute along tokens and features only; normalise with LayerNorm, not "
                    "with the batch's statistics",
                )

    def test_the_head_is_what_is_new(self, backbone: Backbone, checkpoint: Path) -> None:
        """``Backbone.head`` names what `build` draws at random, and nothing that is not there."""
        module = modules.built(backbone, checkpoint, self.labels)
        trainable = {n.partition(".")[0] for n, p in module.named_parameters() if p.requires_grad}
        asked = set(backbone.head)
        lost = asked - trainable if backbone.head != _DEFAULT_HEAD else set()
        if lost or not asked & trainable:
            broken(
                "head",
                f"the module has no trainable {' or '.join(sorted(lost or asked))}",
                "name the top-level attributes of its new layers in Backbone(head=...); it has "
                f"{', '.join(sorted(trainable))}",
            )
        body = sorted(
            name
            for name in modules.drawn(backbone, checkpoint, self.labels)
            if name.partition(".")[0] not in asked
            and not any(fnmatch(name, pattern) for pattern in self.new_in_body)
        )
        if body:
            broken(
                "head",
                f"{_some(body)} is new, but would learn at the rate of the pretrained body",
                "name its top-level attribute in Backbone(head=...), or itself in `new_in_body` "
                "with the reason",
            )


def broken(line: str, what: str, todo: str) -> NoReturn:
    """Fail the running test with the broken line of the contract, what was found, what to do."""
    pytest.fail(f"the contract's {line} is broken: {what}. What to do: {todo}.", pytrace=False)


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{rest}"


def _equal(one: "torch.Tensor", other: "torch.Tensor") -> bool:
    import torch

    return torch.equal(one, other)
