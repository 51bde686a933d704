"""Which stored model is meant. Imports nothing heavy."""

from pathlib import Path

from toxbench.errors import SettingsError, StorageError, did_you_mean
from toxbench.evaluation.definitions import HALF
from toxbench.records import CellRecord
from toxbench.store.cells import CellStore
from toxbench.store.models import ModelRecord, read_model, validation_score

_TUNED = " (tuned)"


def choose_model(store: CellStore, backbone: str | None = None) -> tuple[Path, ModelRecord]:
    """Return the model with the highest validation score, and what is known of it.

    Args:
        store: of a protocol.
        backbone: only models of this one; ``NAME (tuned)`` for those with searched settings.

    Raises:
        SettingsError: the protocol has no cells of such a backbone.
        StorageError: there is no model; the message says how to get one.
        DamagedError: what is known of a model is not as it was written.
    """
    name = backbone.removesuffix(_TUNED) if backbone else ""
    paths = [path for path in store.models.paths() if path.name.startswith(f"{name}-") or not name]
    found = [record for record in map(read_model, paths) if _is_meant(record, backbone)]
    if not found:
        raise _no_model(store, backbone)
    best = min(found, key=lambda record: record.rank)
    return store.models.path(best.key), best


def thresholds_of(record: ModelRecord, rule: str = HALF) -> tuple[float, ...]:
    """Return a model's own thresholds, one for each label.

    Raises:
        SettingsError: it has none of that rule.
    """
    if rule not in record.thresholds:
        known = ", ".join(record.thresholds)
        raise SettingsError(
            f"--thresholds {rule}: the model {record.key.stem} has {known} only; others are chosen "
            "on validation rows with positive ones, and there were none"
        )
    return record.thresholds[rule]


def _is_meant(record: ModelRecord, backbone: str | None) -> bool:
    return backbone is None or backbone in {record.key.candidate, record.title}


def _no_model(store: CellStore, backbone: str | None) -> SettingsError | StorageError:
    cells = store.records()
    trained = [cell for cell in cells if cell.kind == "backbone"]
    meant = [cell for cell in trained if backbone in {None, cell.key.candidate, _title(cell)}]
    if meant:
        best = max(meant, key=lambda cell: validation_score(cell) or 0.0)
        return StorageError(
            f"{store.folder} holds no saved model{f' of {backbone}' if backbone else ''}: it was "
            "run with --save-models none, or the model was lost. A stored cell is not trained "
            f"again: remove {store.path(best.key)} and start the same toxbench run again, with "
            "--save-models best"
        )
    if not trained:
        return StorageError(f"{store.folder} has no trained backbone yet; start with: toxbench run")
    if any(cell.key.candidate == backbone for cell in cells):
        return SettingsError(f"--backbone {backbone}: a baseline has no model; name a backbone")
    names = sorted(set(map(_title, trained)))
    return SettingsError(
        f"--backbone {backbone}: not trained in {store.folder}"
        f"{did_you_mean(str(backbone), names)}; there are {', '.join(names)}"
    )


def _title(cell: CellRecord) -> str:
    return f"{cell.key.candidate}{_TUNED if cell.tuning else ''}"
