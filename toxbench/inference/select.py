"""Selection of a stored model by its validation score; imports neither torch nor pandas."""

from pathlib import Path

from toxbench.errors import SettingsError, StorageError, did_you_mean
from toxbench.evaluation.definitions import HALF
from toxbench.records import CellRecord
from toxbench.store.cells import CellStore
from toxbench.store.models import ModelRecord, read_model_record, validation_score

_TUNED = " (tuned)"


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


def model_thresholds(record: ModelRecord, rule: str = HALF) -> tuple[float, ...]:
    """Return a model's thresholds, one for each label.

    Raises:
        SettingsError: the model has no thresholds of this rule.
    """
    if rule not in record.thresholds:
        rules = ", ".join(record.thresholds)
        raise SettingsError(
            f"--thresholds {rule}: the model {record.key.stem} has only {rules}; the other rules "
            "need positive validation rows, and its run had none"
        )
    return record.thresholds[rule]


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
        f"--backbone {backbone}: not trained in {store.folder}"
        f"{did_you_mean(str(backbone), names)}; choose one of {', '.join(names)}"
    )


def _title(cell: CellRecord) -> str:
    return f"{cell.key.candidate}{_TUNED if cell.tuning else ''}"
