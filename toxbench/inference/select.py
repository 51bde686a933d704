"""Selection of a stored model by its validation score; imports neither torch nor pandas."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toxbench.errors import SettingsError, StorageError, did_you_mean
from toxbench.evaluation.definitions import HALF
from toxbench.evaluation.ensembles import average_probabilities, seeds_average_name
from toxbench.evaluation.thresholds import calibrate, choose_thresholds
from toxbench.records import CellRecord
from toxbench.store.cells import CellStore
from toxbench.store.models import ModelRecord, read_model_record, validation_score
from toxbench.util.text import safe_quote

_TUNED = " (tuned)"


@dataclass(frozen=True)
class ModelChoice:
    """One stored model, or the models of several seeds, whose probabilities are averaged.

    Attributes:
        title: to print.
        models: folder and record of each model, of one backbone with the same settings.
        thresholds: rule -> one threshold for each label.
    """

    title: str
    models: tuple[tuple[Path, ModelRecord], ...]
    thresholds: Mapping[str, tuple[float, ...]]

    @property
    def record(self) -> ModelRecord:
        """The record of the first model; except for its seed, it describes all of them."""
        return self.models[0][1]

    def rule_thresholds(self, rule: str = HALF) -> tuple[float, ...]:
        """Return the thresholds of a rule, one for each label.

        Raises:
            SettingsError: there are no thresholds of this rule.
        """
        if rule not in self.thresholds:
            rules, stem = ", ".join(self.thresholds), self.record.key.stem
            raise SettingsError(
                f"--thresholds {safe_quote(rule)}: the model {stem} has only {rules}; the other "
                "rules need positive validation rows, and its run had none"
            )
        return self.thresholds[rule]


def choose_models(
    store: CellStore, backbone: str | None = None, average: bool = False
) -> ModelChoice:
    """Return the model of `choose_model`; to ``average``, those of all seeds of its fold.

    Thresholds of an average are chosen on the validation rows, from the stored probabilities, which
    are calibrated before they are averaged.

    Raises:
        StorageError: there is only one model to average.
        SettingsError, StorageError, DamagedError: as `choose_model`.
    """
    folder, best = choose_model(store, backbone)
    if not average:
        return ModelChoice(best.title, ((folder, best),), best.thresholds)
    records = [r for r in store.models.records() if _is_other_seed(r, best) and store.has(r.key)]
    records.sort(key=lambda record: record.key.seed)
    if len(records) < 2:
        raise StorageError(
            f"--average: {store.folder} holds only one model of {best.title}; train several with "
            "--seeds 5 --save-models all. A stored cell without a model is trained again after "
            f"its file in {store.folder / 'cells'} is removed"
        )
    models = tuple((store.models.path(record.key), record) for record in records)
    title = seeds_average_name(best.title, len(records))
    return ModelChoice(title, models, _average_thresholds(store, records))


def choose_model(store: CellStore, backbone: str | None = None) -> tuple[Path, ModelRecord]:
    """Return the folder and record of the model with the highest validation score.

    Args:
        store: the folder of a protocol.
        backbone: only models of this one; ``NAME (tuned)`` for those with searched settings.

    Raises:
        SettingsError: the protocol has no cells of this backbone.
        StorageError: no model is stored; the message contains the command that trains one.
        DamagedError: the record of a model is damaged.
    """
    name = backbone.removesuffix(_TUNED) if backbone else ""
    paths = [path for path in store.models.paths() if path.name.startswith(f"{name}-") or not name]
    records = [record for record in map(read_model_record, paths) if _matches(record, backbone)]
    if not records:
        raise _no_model_error(store, backbone)
    best = min(records, key=lambda record: record.sort_key)
    return store.models.path(best.key), best


def _is_other_seed(record: ModelRecord, best: ModelRecord) -> bool:
    """Return whether two models differ at most in their seed."""
    return record.key.model_copy(update={"seed": best.key.seed}) == best.key


def _average_thresholds(
    store: CellStore, records: Sequence[ModelRecord]
) -> dict[str, tuple[float, ...]]:
    validation = np.array(store.protocol().folds[records[0].key.fold].validation, dtype=np.int64)
    cells = (store.reader.read(store.path(record.key)) for record in records)
    average = average_probabilities(
        [calibrate(parts["validation"], record.calibration) for record, parts in cells]
    )
    return choose_thresholds(store.rows().targets[validation], average)


def _matches(record: ModelRecord, backbone: str | None) -> bool:
    return backbone is None or backbone in {record.key.candidate, record.title}


def _no_model_error(store: CellStore, backbone: str | None) -> SettingsError | StorageError:
    """Return the error for a protocol without a matching model, with its reason and remedy."""
    cells = store.records()
    trained = [cell for cell in cells if cell.kind == "backbone"]
    matching = [cell for cell in trained if backbone in {None, cell.key.candidate, _title(cell)}]
    if matching:
        best = max(matching, key=lambda cell: validation_score(cell) or 0.0)
        return StorageError(
            f"{store.folder} holds no saved model{f' of {backbone}' if backbone else ''}: the run "
            "used --save-models none, or the model was lost. A stored cell is not trained again: "
            f"remove {store.path(best.key)} and start the same toxbench run again, with "
            "--save-models best"
        )
    if not trained:
        return StorageError(f"{store.folder} has no trained backbone yet; start with: toxbench run")
    if any(cell.key.candidate == backbone for cell in cells):
        return SettingsError(f"--backbone {backbone}: a baseline has no model; name a backbone")
    names = sorted(set(map(_title, trained)))
    return SettingsError(
        f"--backbone {safe_quote(str(backbone))}: not trained in {store.folder}"
        f"{did_you_mean(str(backbone), names)}; choose one of {', '.join(names)}"
    )


def _title(cell: CellRecord) -> str:
    return f"{cell.key.candidate}{_TUNED if cell.tuning else ''}"
