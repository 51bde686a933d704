"""The objects that plugins register: backbones, report formats and trackers.

Nothing here imports torch until a model is built.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from toxbench.errors import PluginError
from toxbench.evaluation.definitions import HALF, HEADLINES
from toxbench.records import CellRecord, EpochRecord, RunRecord
from toxbench.settings import TrainSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# Search spaces

Value: TypeAlias = str | int | float


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``, both included; integers if the setting is an integer.

    Attributes:
        log: sample uniformly on a logarithmic scale.
        when: (setting, value): sample only if that setting has that value.
    """

    low: float
    high: float
    log: bool = False
    when: tuple[str, Value] | None = None


@dataclass(frozen=True)
class Choice:
    """One of several values; ``when`` as in `Range`."""

    values: tuple[Value, ...]
    when: tuple[str, Value] | None = None


Dimension: TypeAlias = Range | Choice
Space: TypeAlias = Mapping[str, Dimension]

# For checkpoints of BERT's size: around the rates and epochs of Devlin et al. 2019 (appendix A.3)
# and Mosbach et al. 2021 (arXiv:2006.04884).
fine_tuning_space: Space = {
    "learning_rate": Range(1e-5, 2e-4, log=True),
    "head_learning_rate": Range(1e-4, 5e-3, log=True),
    "layer_decay": Range(0.7, 1.0),
    "epochs": Range(2, 8),
    "batch_size": Choice((8, 16, 32)),
    "warmup": Range(0.0, 0.2),
    "weight_decay": Range(1e-3, 0.1, log=True),
    "dropout": Range(0.0, 0.3),
    "loss": Choice(("bce", "weighted-bce", "focal")),
    "pos_weight_cap": Range(1.5, 10.0, log=True, when=("loss", "weighted-bce")),
    "focal_gamma": Range(0.5, 3.0, when=("loss", "focal")),
    "max_length": Choice((64, 128)),
}

# For the small stand-in weights. Chosen with bert and distilbert on four folds within the train
# rows of the YouTube table (results/README.md).
stand_in_settings: Mapping[str, Any] = {
    "epochs": 4,
    "batch_size": 8,
    "learning_rate": 1e-4,
    "head_learning_rate": 1e-3,
    "loss": "weighted-bce",
    "pos_weight_cap": 2.0,
}

# For the small stand-in weights, around `stand_in_settings`.
stand_in_space: Space = {
    "learning_rate": Range(5e-5, 3e-4, log=True),
    "head_learning_rate": Range(3e-4, 4e-3, log=True),
    "layer_decay": Range(0.8, 1.0),
    "epochs": Range(3, 6),
    "batch_size": Choice((8, 16)),
    "dropout": Range(0.0, 0.2),
    "loss": Choice(("bce", "weighted-bce")),
    "pos_weight_cap": Range(1.5, 4.0, log=True, when=("loss", "weighted-bce")),
    "max_length": Choice((96, 128)),
}


# Backbones

Tensors: TypeAlias = "dict[str, npt.NDArray[np.float32]]"

# Model types whose Hugging Face classifier reads only the first token's last hidden state.
_FIRST_TOKEN_TYPES = {"bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"}


def keep_tensors(tensors: Tensors) -> Tensors:
    """Return the tensors unchanged, for backbones with MiniLM's own architecture."""
    return tensors


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """How a backbone starts from the small pretrained weights of the ``offline`` extra.

    Attributes:
        note: text for the leaderboard's weights column: the source of the weights, and the limits
            of the result.
        config: ``config.json`` of the backbone's architecture, ``model_type`` included.
        convert: renames or selects all-MiniLM-L6-v2's tensors for that architecture.
        defaults: settings that differ from the backbone's own, because small weights need other
            rates than large ones.
        head: replaces `Backbone.head`, if more layers are new than with the real weights; None:
            the backbone's own.
        search_space: dimensions that replace the backbone's dimensions of the same name.
    """

    note: str
    config: Mapping[str, Any]
    convert: Callable[[Tensors], Tensors] = keep_tensors
    defaults: Mapping[str, Any] = field(default_factory=dict)
    head: tuple[str, ...] | None = None
    search_space: Space = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A torch encoder with a classification head.

    Attributes:
        name: as written after ``--backbones``; letters, digits, ``-``, ``_`` and ``.``.
        checkpoint: repository of the Hugging Face Hub that holds the pretrained weights. None: the
            module is trained from scratch, and the class overrides `build` and `tokenizer`, which
            get a folder without weights. Its head starts at random, and it has no linear probe.
        model_type: architecture of the weights, as in their ``config.json``; a folder of another
            architecture is refused. None: any.
        revision: its branch or tag, or ``refs/pr/4`` for a pull request, if only that one holds
            the weights as safetensors.
        defaults: settings for those weights; users override any of them.
        search_space: dimensions that ``toxbench tune`` searches; users override any of them.
        stand_in: weights to use without a network; None: there are none.
        head: paths of submodules of the built module that are new and learn at
            ``head_learning_rate``; the rest is the pretrained body. Of the default names, only
            those that the module has are used. With ``head_init = probe``, its square linear
            layers start as the identity.
        last_layer: path of the ``nn.Linear`` whose output is the logits, which starts as a linear
            probe with ``head_init = probe``; "": the last one in the head.
    """

    name: str
    checkpoint: str | None
    model_type: str | None = None
    revision: str = "main"
    defaults: TrainSettings = field(default_factory=TrainSettings)
    search_space: Space = field(default_factory=lambda: fine_tuning_space)
    stand_in: StandIn | None = None
    head: tuple[str, ...] = ("classifier", "pre_classifier", "head", "score")
    last_layer: str = ""

    def __post_init__(self) -> None:
        """Raise `TypeError` if there is neither a checkpoint nor code in its place."""
        has_code = type(self).build is not Backbone.build
        has_code = has_code and type(self).tokenizer is not Backbone.tokenizer
        if self.checkpoint is None and not has_code:
            raise TypeError(f"{self.name}: checkpoint=None needs a class with build and tokenizer")

    def build(self, weights: Path, label_count: int) -> "nn.Module":
        """Return a module whose ``forward(input_ids, attention_mask)`` returns logits.

        Override it for a custom architecture. The logits are floats of shape ``[batch, label]``,
        as a tensor or as the ``logits`` of a Hugging Face output.

        Args:
            weights: a local folder with ``config.json`` and safetensors files: a checkpoint or a
                saved model. The ``model.safetensors`` of a saved model holds the state of the
                module that this method returned before, and is loaded into the new one.
            label_count: columns of the logits.
        """
        from toxbench.plugin.loading import (
            load_classifier,
            refuse_remote_code,
            restrict_to_first_token,
        )

        refuse_remote_code(weights)
        model = load_classifier(weights, label_count)
        if model.config.model_type in _FIRST_TOKEN_TYPES:
            restrict_to_first_token(model.base_model)
        if hasattr(model, "score"):  # a decoder finds the last token of a row by this id
            model.config.get_text_config().pad_token_id = self.tokenizer(weights).pad_token_id
        return cast("nn.Module", model)

    def exported(self, module: "nn.Module") -> "PreTrainedModel":
        """Return a trained module as a class of transformers, for ``toxbench export``.

        The returned model gives the same logits, to 1e-5. Override it for a custom architecture
        that one of transformers' classes for sequence classification can express.

        Args:
            module: returned by `build`; trained, on the CPU, in eval mode.

        Raises:
            PluginError: transformers has no such class.
        """
        from toxbench.plugin.loading import to_transformers_model

        return to_transformers_model(module)

    def tokenizer(self, weights: Path) -> "PreTrainedTokenizerBase":
        """Return the tokenizer that is stored with the weights in a local folder.

        Without a padding token, as of most decoders, it pads with the end token.

        Raises:
            PluginError: it has no token to pad with.
        """
        from transformers import AutoTokenizer

        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            weights, local_files_only=True, trust_remote_code=False
        )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        if tokenizer.pad_token_id is None:
            raise PluginError(
                "the tokenizer has no token to pad with: add pad_token to tokenizer_config.json"
            )
        return tokenizer

    def size_defaults(self, weights: Path) -> tuple[Mapping[str, Any], Space]:
        """Return settings and dimensions that replace the backbone's for weights of this size.

        Override it for checkpoints of several sizes.
        """
        return {}, {}


# Sizes of all-MiniLM-L6-v2 under the names of BERT's configuration; a plugin adds ``model_type``.
minilm_config: Mapping[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
minilm_as_roberta_config: Mapping[str, Any] = {
    **minilm_config,
    "max_position_embeddings": 513,
    "type_vocab_size": 1,
}


def minilm_as_roberta(tensors: Tensors) -> Tensors:
    """Convert MiniLM's encoder to RoBERTa's names, position offset and single token type."""
    import numpy as np

    positions = tensors["embeddings.position_embeddings.weight"]
    converted = {
        name: tensor
        for name, tensor in tensors.items()
        if name.startswith(("encoder.", "embeddings.LayerNorm", "embeddings.word_embeddings"))
    }
    # RoBERTa counts positions from pad_token_id + 1, and the WordPiece tokenizer pads with 0.
    converted["embeddings.position_embeddings.weight"] = np.concatenate([positions[:1], positions])
    converted["embeddings.token_type_embeddings.weight"] = tensors[
        "embeddings.token_type_embeddings.weight"
    ][:1].copy()
    return {f"roberta.{name}": tensor for name, tensor in converted.items()}


# Report formats


@dataclass(frozen=True)
class Table:
    """A table to be written in some format.

    Attributes:
        title: one line.
        headers: column titles.
        rows: cells as text, with rounded numbers, not escaped.
        notes: lines below the table.
        records: the same rows as unrounded values, for formats that machines read.
        keys: number of leading columns that identify a row; they are repeated if the table is
            split because it is too wide.
        best: numbers of rows to highlight, from 0.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    records: tuple[dict[str, str | int | float | bool | None], ...]
    keys: int = 1
    best: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReportFormat:
    """A format of tables: ``toxbench leaderboard --format NAME``.

    Attributes:
        name: as written after ``--format``.
        render: returns the whole text, escaped for its format.
    """

    name: str
    render: Callable[[Table], str]


def spreadsheet_safe(value: object) -> object:
    """Return a value for a CSV file, with a quote before text that is a formula to spreadsheets."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


# Trackers

Fact = str | int | float | bool


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """A logging backend, started by ``toxbench run --trackers NAME``.

    ``start(folder)`` is called once, in a separate process for the tracker, and returns an object
    whose methods, marked ``@hookimpl``, are event hooks: ``toxbench_run_started(run)``,
    ``toxbench_epoch_finished(cell, epoch)``, ``toxbench_cell_finished(result)``. If the object has
    a ``close()``, it is called at the end. Exceptions are reported as one warning, and printed
    text goes to stderr; neither affects the run.

    A cell that is trained again, for example after the process was killed, starts with epoch 1;
    the tracker has to replace the epochs that it logged before. Cells that were stored by a run
    without this tracker are sent by the next run with it, epoch by epoch.

    Attributes:
        name: as written after ``--trackers``, and name of the folder that it writes to.
        start: returns the object with the hooks. Import heavy packages inside.
        needs: package that ``start`` imports. If it is not installed, the run is refused. "": none.
        install: the command that installs it.
        view: the command that shows the log; ``{folder}`` is replaced.
        patience: time limit of one event in seconds, after which the tracker is stopped.
    """

    name: str
    start: Callable[[Path], object]
    needs: str = ""
    install: str = ""
    view: str = ""
    patience: float = 60.0


def epoch_numbers(epoch: EpochRecord) -> dict[str, float]:
    """Return the numbers of an epoch to log, by name, without undefined ones."""
    validation = {f"validation/{name}": value for name, value in epoch.validation.items()}
    return _defined(validation | {"train/loss": epoch.train_loss, "train/seconds": epoch.seconds})


def cell_numbers(result: CellRecord) -> dict[str, float]:
    """Return the final numbers of a cell to log, by name: scores, gaps and cost.

    Scores are at threshold 0.5. The two headline scores are added for the other threshold rules,
    such as ``test/micro_f1.global``. ``gap`` is train minus test, of the same checkpoint.
    """
    numbers: dict[str, float | None] = {
        f"{part}/{name}": value
        for part, scores in result.metrics[HALF].items()
        for name, value in scores.items()
    }
    for name in HEADLINES:
        train, test = numbers.get(f"train/{name}"), numbers.get(f"test/{name}")
        numbers[f"gap/{name}"] = None if train is None or test is None else train - test
        for rule in result.metrics.keys() - {HALF}:
            numbers[f"test/{name}.{rule}"] = result.metrics[rule]["test"].get(name)
    numbers |= {f"cost/{name}": value for name, value in result.cost.model_dump().items()}
    return _defined(numbers)


def cell_facts(result: CellRecord, run: RunRecord | None) -> dict[str, Fact]:
    """Return the facts of a cell to log: settings, origin, and the limits of its scores.

    Args:
        result: the cell.
        run: the run that sends the cell; None: unknown, its facts are left out.
    """
    settings = result.all_settings
    weights = result.weights
    run_facts = run.model_dump(include={"table", "synthetic", "exploratory"}) if run else {}
    facts = {
        "candidate": result.key.candidate,
        "fold": result.key.fold,
        "seed": result.key.seed,
        "kind": result.kind,
        "tuned": result.tuning is not None,
        "weights": weights.label if weights else None,
        "stand_in": weights is not None and weights.source == "stand-in",
        "constant": result.has_constant_predictions,
        "parameters": result.parameters,
        "device": result.environment.device,
        "precision": result.environment.precision,
        "protocol": result.fingerprint[:12],
        "from": result.distribution,
        **run_facts,
        **{f"settings.{name}": value for name, value in settings.items()},
    }
    return {name: value for name, value in facts.items() if value is not None}


def _defined(numbers: dict[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if value is not None}
