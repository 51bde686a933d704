"""The contract of a backbone plugin. Nothing here imports torch until a model is built."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from toxbench.records import CellRecord, EpochRecord, RunRecord
from toxbench.settings import TrainSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Value: TypeAlias = str | int | float


@dataclass(frozen=True)
class Range:
    """Every number from ``low`` to ``high``, both included; whole ones for a whole setting.

    Attributes:
        log: draw evenly on a logarithmic scale.
        when: (setting, value): the range is only there while that setting has that value.
    """

    low: float
    high: float
    log: bool = False
    when: tuple[str, Value] | None = None


@dataclass(frozen=True)
class Choice:
    """One of some values; ``when`` as for `Range`."""

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

# For the small stand-in weights: they want higher rates, lower layers that move less, and epochs
# enough to become sure of themselves. Chosen by scores inside the real table's train rows.
stand_in_space: Space = {
    "learning_rate": Range(1.5e-4, 3e-4, log=True),
    "head_learning_rate": Range(1e-3, 4e-3, log=True),
    "layer_decay": Range(0.8, 0.95),
    "epochs": Range(6, 8),
    "batch_size": Choice((16, 32)),
    "dropout": Range(0.05, 0.2),
    "loss": Choice(("bce", "weighted-bce")),
    "pos_weight_cap": Range(1.5, 5.0, log=True, when=("loss", "weighted-bce")),
    "max_length": Choice((96, 128)),
}


# Of these, Hugging Face's classifier looks at nothing but the first token's last hidden state.
_READ_THE_FIRST_TOKEN = {"bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"}
Tensors: TypeAlias = "dict[str, npt.NDArray[np.float32]]"


def unchanged(tensors: Tensors) -> Tensors:
    """Convert nothing: the stand-in's own architecture is the backbone's."""
    return tensors


def first_token_classifier(weights: Path, label_count: int) -> "nn.Module":
    """Build an encoder with dropout and a linear layer on its first token, without a pooler."""
    from toxbench.plugin.modules import FirstTokenClassifier

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

        from toxbench.plugin.modules import finish_first_token_only, refuse_own_code

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
        from toxbench.plugin.modules import standard_model

        return standard_model(module)

    def tokenizer(self, weights: Path) -> "PreTrainedTokenizerBase":
        """Return the tokenizer that belongs to the weights in a local folder."""
        from transformers import AutoTokenizer

        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            weights, local_files_only=True, trust_remote_code=False
        )
        return tokenizer


Predict: TypeAlias = "Callable[[Sequence[str]], npt.NDArray[np.float64]]"
Fit: TypeAlias = "Callable[[Sequence[str], npt.NDArray[np.uint8]], Predict]"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A reference that learns from texts in seconds and draws nothing at random.

    Attributes:
        name: its row on the leaderboard; letters, digits, ``-``, ``_`` and ``.``.
        fit: ``fit(texts, targets)`` with targets 0/1 of shape ``[row, label]`` returns
            ``predict(texts)``, which returns probabilities of shape ``[row, label]``.
        most_rows: of more train rows than this, ``fit`` gets a random sample of so many, the same
            in every run, and the leaderboard says so; None: it gets all of them.
    """

    name: str
    fit: Fit
    most_rows: int | None = None


@dataclass(frozen=True)
class Table:
    """A table that is ready to be written.

    Attributes:
        title: one line.
        headers: column titles.
        rows: cells as text, numbers already rounded; nothing is escaped yet.
        notes: lines below the table.
        records: the same rows as unrounded values, for formats that machines read.
        keys: how many of the first columns say which row it is; they are written again where the
            others do not fit side by side.
        best: numbers of rows that may stand out, from 0.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    records: tuple[dict[str, str | int | float | bool | None], ...]
    keys: int = 1
    best: tuple[int, ...] = ()


def spreadsheet_safe(value: object) -> object:
    """Return a cell of a CSV file; a text that a spreadsheet would run as a formula is quoted."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


@dataclass(frozen=True, kw_only=True)
class ReportFormat:
    """A way to write a table: ``toxbench leaderboard --format NAME``.

    Attributes:
        name: what users write after ``--format``.
        render: the whole text, escaped for where it is going.
    """

    name: str
    render: Callable[[Table], str]


Fact = str | int | float | bool
_ALWAYS = "0.5"  # the thresholds rule whose scores are logged in full
_HEADLINES = ("micro_f1", "subset_accuracy")


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """Somewhere to log to: ``toxbench run --trackers NAME``. It is off until it is asked for.

    ``start(folder)`` is called once, in a process of the tracker's own, and returns an object
    whose methods, marked ``@hookimpl``, are event hooks: ``toxbench_run_started(run)``,
    ``toxbench_epoch_finished(cell, epoch)``, ``toxbench_cell_finished(result)``. If it has a
    ``close()``, that is called at the end. What any of them raises is warned of once, and what
    they print goes to stderr; neither harms the run.

    A cell that trains again, after a kill say, begins again with epoch 1: what was logged of it
    before is to be replaced. Cells that were stored while nobody told this tracker are told by the
    next run, epoch by epoch.

    Attributes:
        name: what users write after ``--trackers``, and of the folder it writes to.
        start: makes the listener. Import what is heavy in there.
        needs: package that ``start`` imports; where it is missing, asking for the tracker is
            refused. "": none.
        install: the command that installs it.
        view: the command that shows what was logged; ``{folder}`` is replaced.
        patience: seconds that one event may take; a tracker that takes longer is ended.
    """

    name: str
    start: Callable[[Path], object]
    needs: str = ""
    install: str = ""
    view: str = ""
    patience: float = 60.0


def epoch_numbers(epoch: EpochRecord) -> dict[str, float]:
    """Return what is to be logged of an epoch, by name; what is undefined is left out."""
    validation = {f"validation/{name}": value for name, value in epoch.validation.items()}
    return _known(validation | {"train/loss": epoch.train_loss, "train/seconds": epoch.seconds})


def cell_numbers(result: CellRecord) -> dict[str, float]:
    """Return the final scores of a cell, by name: all at threshold 0.5, the gaps, and the cost.

    ``gap`` is train minus test, of the same checkpoint. Of other threshold rules there are the
    two headline scores, such as ``test/micro_f1.global``.
    """
    numbers: dict[str, float | None] = {
        f"{part}/{name}": value
        for part, scores in result.metrics[_ALWAYS].items()
        for name, value in scores.items()
    }
    for name in _HEADLINES:
        train, test = numbers.get(f"train/{name}"), numbers.get(f"test/{name}")
        numbers[f"gap/{name}"] = None if train is None or test is None else train - test
        for rule in result.metrics.keys() - {_ALWAYS}:
            numbers[f"test/{name}.{rule}"] = result.metrics[rule]["test"].get(name)
    numbers |= {f"cost/{name}": value for name, value in result.cost.model_dump().items()}
    return _known(numbers | {"best_epoch": result.best_epoch})


def cell_facts(result: CellRecord, run: RunRecord | None) -> dict[str, Fact]:
    """Return what a cell was: settings, origin, and what to know before quoting its scores.

    Args:
        result: the cell.
        run: that it is told in; None: that is not known, and so is left out.
    """
    settings = result.settings.model_dump() if result.settings else {}
    weights = result.weights
    about = run.model_dump(include={"table", "synthetic", "exploratory"}) if run else {}
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
        **about,
        **{f"settings.{name}": value for name, value in settings.items()},
    }
    return {name: value for name, value in facts.items() if value is not None}


def _known(numbers: dict[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if value is not None}


# Sizes in the words of BERT's configuration; ``model_type`` is for the plugin to say.
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
    """Give MiniLM's encoder RoBERTa's names, position offset and single token type."""
    import numpy as np

    positions = tensors["embeddings.position_embeddings.weight"]
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if name.startswith(("encoder.", "embeddings.LayerNorm", "embeddings.word_embeddings"))
    }
    # RoBERTa counts positions from pad_token_id + 1, and the WordPiece tokenizer pads with 0.
    kept["embeddings.position_embeddings.weight"] = np.concatenate([positions[:1], positions])
    kept["embeddings.token_type_embeddings.weight"] = tensors[
        "embeddings.token_type_embeddings.weight"
    ][:1].copy()
    return {f"roberta.{name}": tensor for name, tensor in kept.items()}
