"""Safe, quiet loading of modules of transformers, and changes of loaded modules."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    PreTrainedModel,
    modeling_utils,
)

from toxbench.errors import PluginError, SettingsError
from toxbench.plugin.checkpoint import Shape, tensor_shapes, weight_files, wrapper_prefix

ModelClasses: TypeAlias = Mapping[Any, Any]  # class of the configuration -> class of the model
CLASSIFIERS: ModelClasses = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
_SHOWN_NAMES = 3
# (path of the list of layers, path in a layer of the module after attention). The inputs of that
# module are the only inputs of the rest of the layer.
_LAYERS = (("encoder.layer", "attention.output"), ("transformer.layer", "sa_layer_norm"))


@dataclass(frozen=True)
class LoadReport:
    """How the tensors of a checkpoint fit a model of transformers.

    Attributes:
        model: the model.
        missing: names of its tensors that no file holds.
        mismatched: name of a tensor -> its shapes in the file and in the model, which differ.
    """

    model: PreTrainedModel
    missing: frozenset[str]
    mismatched: Mapping[str, tuple[Shape, Shape]]

    @cached_property
    def body(self) -> frozenset[str]:
        """Names of the tensors of the pretrained encoder, without its pooler.

        Many checkpoints have no pooler, or none of value: it belongs to the head.
        """
        model = self.model
        prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
        names = (name for name in model.state_dict() if name.startswith(prefix))
        return frozenset(name for name in names if "pooler" not in name.split("."))

    @property
    def new_names(self) -> frozenset[str]:
        """Names of the tensors that were initialized at random."""
        return self.missing | self.mismatched.keys()

    def stored_shape(self, name: str) -> Shape | None:
        """Return the shape of a tensor in the file; None if no file holds it."""
        if name in self.mismatched:
            return self.mismatched[name][0]
        return None if name in self.missing else tuple(self.model.get_parameter(name).shape)

    def check_body(self, source: str) -> None:
        """Refuse a model whose body is not completely in the checkpoint.

        Args:
            source: the weights, for the message.

        Raises:
            SettingsError: with the number of tensors that fit, and names of others.
        """
        names = sorted(self.body & self.new_names)
        if not names:
            return
        fit = len(self.body) - len(names)
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        raise SettingsError(
            f"{source}: {fit} of {len(self.body)} tensors of the encoder fit "
            f"{type(self.model).__name__}; missing or of another shape: "
            f"{', '.join(map(self._describe, names[:_SHOWN_NAMES]))}{more}; use weights of the "
            "architecture and sizes in config.json, as save_pretrained writes them"
        )

    def _describe(self, name: str) -> str:
        if name not in self.mismatched:
            return name
        stored, needed = map(list, self.mismatched[name])
        return f"{name} ({stored}, not {needed})"


@contextmanager
def quiet_transformers() -> Iterator[list[LoadReport]]:
    """Silence the progress bars of transformers; yield the load reports instead of logging them.

    A tensor of another shape is no error inside the context: the caller checks the reports.
    """
    from transformers.utils import logging

    reports: list[LoadReport] = []

    def collect(model: PreTrainedModel, loading_info: Any, **_: object) -> None:
        reports.append(_report(model, loading_info))

    library: Any = modeling_utils  # it has no option for its report
    log_report = library.log_state_dict_report
    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(40)  # logging.ERROR
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    library.log_state_dict_report = collect
    try:
        yield reports
    finally:
        library.log_state_dict_report = log_report
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def load_classifier(weights: Path, label_count: int) -> PreTrainedModel:
    """Load a checkpoint with a head for some labels, in float32.

    Prefixes that wrappers of a module added to all names are left out.
    """
    prefix = wrapper_prefix(tensor_shapes(weight_files(weights)))
    return _from_pretrained(
        CLASSIFIERS,
        weights,
        _stripped_tensors(weights, prefix) if prefix else None,
        num_labels=label_count,
        problem_type="multi_label_classification",
    )


def compare_shapes(
    weights: Path, classes: ModelClasses, prefix: str = "", **config: object
) -> LoadReport:
    """Build a model and compare its tensors with the headers of a checkpoint's files.

    No weights are read: a tensor that is in a file takes no memory.

    Args:
        weights: the checkpoint's folder.
        classes: models of transformers by configuration, such as `CLASSIFIERS`.
        prefix: of the names in the files, which is left out.
        config: values that replace those in ``config.json``.
    """
    shapes = tensor_shapes(weight_files(weights))
    zero = torch.zeros(())
    tensors = {name.removeprefix(prefix): zero.expand(shape) for name, shape in shapes.items()}
    with quiet_transformers() as reports, torch.random.fork_rng(devices=[]):
        _from_pretrained(classes, weights, tensors, **config)
    return reports[-1]


def refuse_remote_code(weights: Path) -> None:
    """Refuse a checkpoint whose architecture is Python code stored with its weights.

    Such code is never run. (The message of transformers would advise the user to allow it.)

    Raises:
        PluginError: the checkpoint needs such code.
    """
    config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        raise PluginError(
            "the checkpoint needs the Python code that comes with it (auto_map in config.json), "
            "and such code is never run; choose an architecture of transformers, or write a "
            "plugin that builds it"
        )


def _from_pretrained(
    classes: ModelClasses, weights: Path, tensors: dict[str, torch.Tensor] | None, **config: object
) -> PreTrainedModel:
    """Build a model from a folder's ``config.json`` and tensors; None: those of the folder."""
    safe = {"local_files_only": True, "trust_remote_code": False}
    loaded_config = AutoConfig.from_pretrained(weights, **config, **safe)
    if type(loaded_config) not in classes:
        raise PluginError(f"transformers has no classifier for {loaded_config.model_type}")
    model: PreTrainedModel = classes[type(loaded_config)].from_pretrained(
        None if tensors else weights,
        config=loaded_config,
        state_dict=tensors,
        dtype=torch.float32,  # AdamW cannot train the half precision of some checkpoints
        use_safetensors=True,
        **safe,
    )
    return model


def _stripped_tensors(weights: Path, prefix: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {
        name.removeprefix(prefix): tensor
        for path in weight_files(weights)
        for name, tensor in load_file(path).items()
    }


def _report(model: PreTrainedModel, info: Any) -> LoadReport:
    """Convert the information that transformers collects in a load.

    Raises:
        PluginError: tensors could not be converted to those of the model.
    """
    problems = [*info.error_msgs, *info.conversion_errors.values()]
    if problems:
        reason = " ".join(str(problems[0]).split())
        raise PluginError(f"the tensors of the weights cannot be converted: {reason}")
    mismatched = {name: (tuple(a), tuple(b)) for name, a, b in info.mismatched_keys}
    return LoadReport(model, frozenset(info.missing_keys), mismatched)


def restrict_to_first_token(encoder: nn.Module) -> None:
    """Compute only the first token after the attention of the last layer of BERT or DistilBERT.

    A classifier that reads the first token has the same logits. It saves an eighth of the matrix
    products of an encoder with six layers, and a quarter with three (measured in
    tests/bench/test_tricks.py). Encoders of another structure are not changed.
    """
    for layers_path, after_attention_path in _LAYERS:
        layers = _submodule(encoder, layers_path)
        if isinstance(layers, nn.ModuleList):
            after_attention = _submodule(layers[-1], after_attention_path)
            if after_attention is not None:
                after_attention.register_forward_pre_hook(_keep_first_token)


def to_transformers_model(module: nn.Module) -> PreTrainedModel:
    """Return a model of transformers with the same logits.

    Raises:
        PluginError: transformers has no class for the module.
    """
    if isinstance(module, PreTrainedModel):
        return module
    raise PluginError(
        f"{type(module).__name__} is not a class of transformers, and its plugin does not convert "
        "it to one (Backbone.exported); toxbench predict works with the module itself"
    )


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    for name in path.split("."):
        child = getattr(module, name, None)
        if not isinstance(child, nn.Module):
            return None
        module = child
    return module


def _keep_first_token(
    module: nn.Module, inputs: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """Cut each input ``[batch, token, size]`` to ``[batch, 1, size]``."""
    return tuple(tensor[:, :1] for tensor in inputs)
