"""Whether a checkpoint, the model of its backbone, the head and the tokenizer fit together.

`inspect` compares them before training, from the headers of files. `examine` describes the head
of a built module.
"""

from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_MAPPING,
    PreTrainedModel,
)

from toxbench.errors import SettingsError, ToxbenchError
from toxbench.plugin.checkpoint import tensor_shapes, weight_files, wrapper_prefix
from toxbench.plugin.contracts import Backbone
from toxbench.plugin.loading import (
    CLASSIFIERS,
    LoadReport,
    ModelClasses,
    compare_shapes,
    quiet_transformers,
    refuse_remote_code,
)
from toxbench.settings import TrainSettings
from toxbench.training.head import Head
from toxbench.training.parameters import input_embedding
from toxbench.training.weights import Weights, checkpoint_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class LoadedModule:
    """A module that a backbone built from a checkpoint.

    Attributes:
        module: the module.
        head: its new layers, those included that the checkpoint lacks.
        has_stored_head: whether the head was loaded from the checkpoint.
        other_labels: number of labels of a head in the checkpoint that does not fit.
    """

    module: nn.Module
    head: Head
    has_stored_head: bool
    other_labels: int | None

    def check_head(self, settings: TrainSettings, source: str) -> None:
        """Raise `SettingsError` if the settings keep a head that the checkpoint does not have."""
        if settings.head_init == "checkpoint" and not self.has_stored_head:
            raise SettingsError(
                f"{source}: the checkpoint has no head for these labels; leave out --keep-head"
            )

    def prepare_head(self, settings: TrainSettings, source: str) -> None:
        """Replace a head of the checkpoint by a random one, unless the settings keep it.

        Raises:
            SettingsError: as `check_head`, or loaded weights are not finite.
        """
        self.check_head(settings, source)
        keeps_head = settings.head_init == "checkpoint"
        if not keeps_head and (self.has_stored_head or self.other_labels is not None):
            self.head.reset(self.module)
        for name, parameter in self.module.named_parameters():
            is_loaded = keeps_head or not self.head.contains(name)
            if is_loaded and not torch.isfinite(parameter).all():
                raise SettingsError(
                    f"{source}: {name} holds NaN or infinity: the file is damaged, or the training "
                    "that wrote it diverged; use other weights"
                )


def inspect(
    backbone: Backbone, weights: Weights, label_count: int, settings: TrainSettings
) -> Weights:
    """Compare a checkpoint with its backbone before training, without loading the weights.

    A plugin's own code does not run: what it builds is checked when a cell builds it.

    Returns:
        the weights, with ``positions`` and ``notes``; unchanged if they are not downloaded yet.

    Raises:
        SettingsError: the checkpoint does not fit.
        PluginError: it needs code that comes with it.
    """
    folder = weights.folder
    if backbone.checkpoint is None and settings.head_init == "checkpoint":
        raise SettingsError(
            f"{backbone.name} is trained from scratch: it has no head to keep; "
            "leave out --keep-head"
        )
    if folder is None:
        return weights
    source, config = describe(backbone, weights), checkpoint_config(folder)
    refuse_remote_code(folder)
    _check_architecture(backbone, config.get("model_type"), source)
    prefix = wrapper_prefix(tensor_shapes(weight_files(folder)))
    report = _compare(backbone, folder, label_count, prefix, source)
    if report is None:
        return weights
    if type(backbone).tokenizer is Backbone.tokenizer:
        with _readable(source, "its tokenizer"), quiet_transformers():
            tokenizer = backbone.tokenizer(folder)
        check_vocabulary(tokenizer, report.model, source)
    weights = replace(weights, positions=count_positions(report.model))
    if _builds_itself(backbone):
        return weights
    prefix_notes = [f"the prefix {prefix} of all tensors is left out"] if prefix else []
    head_notes = _head_notes(report, head_of(backbone, weights), settings, source)
    return replace(weights, notes=(*prefix_notes, *head_notes))


def examine(module: nn.Module, reports: Sequence[LoadReport], head: Head) -> LoadedModule:
    """Describe the head of a module, given how a checkpoint fits each model in it."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    stored_shapes = {
        names[id(parameter)]: report.stored_shape(name)
        for report in reports
        for name, parameter in report.model.named_parameters()
        if id(parameter) in names
    }
    new = {
        name
        for name, parameter in module.named_parameters()
        if name in stored_shapes and stored_shapes[name] != tuple(parameter.shape)
    }
    in_head = {name for name in names.values() if head.contains(name)}
    parts = sorted({name.rpartition(".")[0] for name in new - in_head})
    replaced_shapes = [shape for name in sorted(in_head & new) if (shape := stored_shapes[name])]
    return LoadedModule(
        module,
        replace(head, names=(*head.names, *parts)),
        has_stored_head=bool(in_head) and in_head <= stored_shapes.keys() - new,
        other_labels=replaced_shapes[0][0] if replaced_shapes else None,
    )


def check_vocabulary(tokenizer: "PreTrainedTokenizerBase", module: nn.Module, source: str) -> None:
    """Raise `SettingsError` if a tokenizer has more tokens than the module's embedding has rows."""
    models = [model for model in module.modules() if isinstance(model, PreTrainedModel)]
    embedding = input_embedding(models[0]) if models else None
    if not isinstance(tokenizer, Sized) or not isinstance(embedding, nn.Embedding):
        return
    if len(tokenizer) > embedding.num_embeddings:
        raise SettingsError(
            f"{source}: the tokenizer has {len(tokenizer)} tokens, but the token embedding only "
            f"{embedding.num_embeddings} rows; store the tokenizer of these weights with them"
        )


def count_positions(model: PreTrainedModel) -> int | None:
    """Return the most tokens that a model has positions for; None if nothing limits them.

    RoBERTa and its kin count positions from ``padding_idx + 1``, so their table is longer.
    """
    counts = [
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
    ]
    limit = None
    with suppress(NotImplementedError):  # of XLNet, which has no limit
        limit = getattr(model.config, "max_position_embeddings", None)
    return min([*counts, limit] if isinstance(limit, int) else counts, default=None)


def head_of(backbone: Backbone, weights: Weights) -> Head:
    """Return the layers that are new with these weights."""
    return Head(weights.head or backbone.head, backbone.last_layer)


def describe(backbone: Backbone, weights: Weights) -> str:
    """Return the name of a backbone and its weights, for messages."""
    return f"{backbone.name} from {weights.record.label}"


def _check_architecture(backbone: Backbone, model_type: object, source: str) -> None:
    if backbone.model_type not in {None, model_type}:
        raise SettingsError(
            f"{source}: the architecture is {model_type}, but {backbone.name} needs "
            f"{backbone.model_type}; name this folder for a backbone of its architecture"
        )


def _compare(
    backbone: Backbone, folder: Path, label_count: int, prefix: str, source: str
) -> LoadReport | None:
    """Compare the headers of a checkpoint with its model; None if transformers has no model.

    A plugin that builds its module itself may use a part of the model, but must use some of it.
    """
    classes: ModelClasses = CLASSIFIERS
    if _builds_itself(backbone):
        classes, prefix = MODEL_MAPPING, ""
    model_type = checkpoint_config(folder).get("model_type", "")
    if model_type not in CONFIG_MAPPING or CONFIG_MAPPING[model_type] not in classes:
        if not _builds_itself(backbone):
            raise SettingsError(f"{source}: transformers has no classifier for {model_type}")
        return None
    with _readable(source, "config.json"):
        report = compare_shapes(folder, classes, prefix, num_labels=label_count)
    if not _builds_itself(backbone) or report.body <= report.new_names:
        report.check_body(source)
    return report


def _builds_itself(backbone: Backbone) -> bool:
    return type(backbone).build is not Backbone.build


@contextmanager
def _readable(source: str, file: str) -> Iterator[None]:
    """Turn the errors of libraries that read a file into a `SettingsError` of one line."""
    try:
        yield
    except ToxbenchError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise SettingsError(f"{source}: {file} cannot be used: {reason}") from error


def _head_notes(
    report: LoadReport, head: Head, settings: TrainSettings, source: str
) -> Iterator[str]:
    """Yield which layers are new although the checkpoint has a head, or has none of the kind."""
    loaded = examine(report.model, [report], head)
    loaded.check_head(settings, source)
    if parts := loaded.head.names[len(head.names) :]:
        yield f"new like the head: {', '.join(parts)}"
    if loaded.other_labels is not None:
        yield f"a new head replaces that for {loaded.other_labels} labels"
    elif loaded.has_stored_head and settings.head_init == "checkpoint":
        yield "the head of the checkpoint is kept"
    elif loaded.has_stored_head:
        yield "a new head replaces that of the checkpoint (--keep-head keeps it)"
