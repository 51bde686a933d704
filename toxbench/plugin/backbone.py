"""The contract of a backbone plugin. Nothing here imports torch until a model is built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from toxbench.plugin.space import Space, fine_tuning_space
from toxbench.settings import TrainSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Of these, Hugging Face's classifier looks at nothing but the first token's last hidden state.
_READ_THE_FIRST_TOKEN = {"bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"}
Tensors: TypeAlias = "dict[str, npt.NDArray[np.float32]]"


def unchanged(tensors: Tensors) -> Tensors:
    """Convert nothing: the stand-in's own architecture is the backbone's."""
    return tensors


def first_token_classifier(weights: Path, label_count: int) -> "nn.Module":
    """Build an encoder with dropout and a linear layer on its first token, without a pooler."""
    from toxbench.plugin.heads import FirstTokenClassifier

    return FirstTokenClassifier(weights, label_count)


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """How a backbone starts from the small pretrained weights of the ``offline`` extra.

    Attributes:
        note: for the leaderboard's weights column: what was taken, and what a row does not say.
        config: ``config.json`` of the backbone's architecture, ``model_type`` included.
        convert: all-MiniLM-L6-v2's tensors, renamed or chosen for that architecture. Raise the
            version when it changes, so that folders made earlier are not used.
        defaults: settings that differ from the backbone's own, because small weights want
            other rates than large ones.
        version: see ``convert``.
        build: replaces the backbone's own `Backbone.build`, where the head that belongs to the
            real weights is of no use to the stand-in.
        search_space: dimensions that replace the backbone's own of the same name.
    """

    note: str
    config: Mapping[str, Any]
    convert: Callable[[Tensors], Tensors] = unchanged
    defaults: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1
    build: "Callable[[Path, int], nn.Module] | None" = None
    search_space: Space = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A torch encoder with a classification head, as a plugin registers it.

    Attributes:
        name: what users write after ``--backbones``; letters, digits, ``-``, ``_`` and ``.``.
        checkpoint: repository of the Hugging Face Hub that holds the pretrained weights.
        revision: its branch or tag, or ``refs/pr/4`` for a pull request, where only that holds
            the weights as safetensors.
        defaults: settings for those weights; users override any of them.
        search_space: what ``toxbench tune`` searches; users override any dimension.
        stand_in: what to use where there is no network; None: nothing.
        head: top-level attributes of the built module that are new and learn at
            ``head_learning_rate``; the rest is the pretrained body. Of the default names, those
            that the module has.
    """

    name: str
    checkpoint: str
    revision: str = "main"
    defaults: TrainSettings = field(default_factory=TrainSettings)
    search_space: Space = field(default_factory=lambda: fine_tuning_space)
    stand_in: StandIn | None = None
    head: tuple[str, ...] = ("classifier", "pre_classifier", "head", "score")

    def build(self, weights: Path, label_count: int) -> "nn.Module":
        """Return a module whose ``forward(input_ids, attention_mask)`` gives logits.

        Override it for an architecture of your own. The logits are floats of shape
        ``[batch, label]``, as a tensor or as the ``logits`` of a Hugging Face output.

        Args:
            weights: a local folder with ``config.json`` and safetensors files: a checkpoint, or
                a saved model. Of the latter, ``model.safetensors`` holds the state of what this
                method returned, and is loaded into what it returns now.
            label_count: columns of the logits.
        """
        import torch
        from transformers import AutoModelForSequenceClassification

        from toxbench.plugin.heads import finish_first_token_only, refuse_own_code

        refuse_own_code(weights)
        model = AutoModelForSequenceClassification.from_pretrained(
            weights,
            num_labels=label_count,
            dtype=torch.float32,  # some checkpoints are stored in half, which AdamW cannot train
            problem_type="multi_label_classification",
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
        if model.config.model_type in _READ_THE_FIRST_TOKEN:
            finish_first_token_only(model.base_model)
        return cast("nn.Module", model)

    def exported(self, module: "nn.Module") -> "PreTrainedModel":
        """Return a trained module as a class that transformers has, for ``toxbench export``.

        It gives the same logits, to 1e-5. Override it for an architecture of your own that one of
        transformers' classes for sequence classification can express.

        Args:
            module: as `build`, or a stand-in's, made it; trained, on the CPU, in eval mode.

        Raises:
            PluginError: there is no such class.
        """
        from toxbench.plugin.standard import standard_model

        return standard_model(module)

    def tokenizer(self, weights: Path) -> "PreTrainedTokenizerBase":
        """Return the tokenizer that belongs to the weights in a local folder."""
        from transformers import AutoTokenizer

        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            weights, local_files_only=True, trust_remote_code=False
        )
        return tokenizer
