"""Reads stored cells: checked against their protocol, and scored by this version's metrics."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toxbench.errors import StorageError
from toxbench.evaluation.definitions import METRICS, VERSIONS
from toxbench.evaluation.thresholds import choose_thresholds, fit_calibration
from toxbench.ranking.pool import Cell
from toxbench.records import FIXED_RULE, PARTS, CellRecord, FailureRecord, Part
from toxbench.store.cells import CellStore, ProtocolRecord
from toxbench.store.files import StoredRows
from toxbench.util.arrays import known_targets


def load_failures(*stores: CellStore) -> list[FailureRecord]:
    """Read the failures of cells; of a cell in several folders, the first is read.

    Read them before the cells: a run removes a failure after it has stored the cell.

    Raises:
        StorageError: a file is damaged, or a newer toxbench wrote it.
    """
    records = (r for store in reversed(stores) for r in store.failures.records())
    return list({record.key: record for record in records}.values())


def load_cells(*stores: CellStore) -> tuple[ProtocolRecord, StoredRows, list[Cell]]:
    """Read the input of a leaderboard; of a cell in several folders, the first is read.

    Cells that were stored with other versions of the metrics or rules are scored again.

    Raises:
        StorageError: a folder holds no results, a file is damaged, or the folders hold results
            of different protocols.
    """
    protocol = stores[0].protocol()
    for store in stores[1:]:
        check_same_protocol(protocol, store.protocol(), store.folder)
    rows = stores[0].rows()
    check_rows_match(protocol, rows, stores[0].folder)
    stored = (cell for store in reversed(stores) for cell in store.cells())
    cells = {record.key: (record, tensors) for record, tensors in stored}
    for record, tensors in cells.values():
        check_cell_shape(protocol, record, tensors)
    return protocol, rows, [_up_to_date(cell, protocol, rows) for cell in cells.values()]


def score_again(
    cell: Cell, protocol: ProtocolRecord, rows: StoredRows, columns: Sequence[int]
) -> Cell:
    """Score the stored probabilities of a cell for the labels of these columns."""
    # scikit-learn takes a second to import, and most leaderboards need no cell scored again.
    from toxbench.evaluation.metrics import score_cell

    record, tensors = cell
    fold, chosen = protocol.folds[record.key.fold], list(columns)
    probabilities = {part: np.ascontiguousarray(tensors[part][:, chosen]) for part in PARTS}
    codes = {part: rows.codes[np.array(getattr(fold, part), int)][:, chosen] for part in PARTS}
    validation = known_targets(codes["validation"]), probabilities["validation"]
    if record.tuning is None:
        thresholds = choose_thresholds(*validation)
    else:  # tuned settings include their thresholds
        thresholds = {rule: tuple(t[i] for i in chosen) for rule, t in record.thresholds.items()}
    labels = [protocol.labels[i] for i in chosen]
    calibration = fit_calibration(*validation)
    scores = score_cell(labels, codes, probabilities, thresholds)
    changes = {"thresholds": thresholds, "calibration": calibration, **scores}
    return record.model_copy(update=changes), probabilities


def _up_to_date(cell: Cell, protocol: ProtocolRecord, rows: StoredRows) -> Cell:
    """Score a cell again if a metric or a thresholds rule has another version, or is missing."""
    record = cell[0]
    is_ours = record.fingerprint == protocol.fingerprint
    if not is_ours or (record.versions == VERSIONS and _is_complete(record, protocol)):
        return cell
    return score_again(cell, protocol, rows, range(len(protocol.labels)))


def _is_complete(record: CellRecord, protocol: ProtocolRecord) -> bool:
    """Whether each thresholds rule has all metrics of all parts, and the scores of all labels."""
    fold = protocol.folds[record.key.fold]
    parts = {part for part in PARTS if getattr(fold, part)}
    return record.metrics.keys() == record.per_label.keys() == record.thresholds.keys() and all(
        scores.keys() == parts
        and all(metrics.keys() == METRICS.keys() for metrics in scores.values())
        and tuple(s.label for s in record.per_label[rule]) == protocol.labels
        for rule, scores in record.metrics.items()
    )


def diff_protocols(first: ProtocolRecord, second: ProtocolRecord) -> list[str]:
    """Return descriptions of the parts in which two protocols differ."""
    differences: list[str] = []
    if first.data_fingerprint != second.data_fingerprint:
        tables = (f"{p.name} with {p.rows} rows" for p in (first, second))
        differences.append(f"the table ({' and '.join(tables)})")
    if first.labels != second.labels:
        labels = sorted(set(first.labels) ^ set(second.labels))
        differences.append(f"the labels ({', '.join(labels) or 'their order'})")
    if first.folds != second.folds:
        splits = (_describe_split(p) for p in (first, second))
        differences.append(f"the split ({' and '.join(splits)})")
    return differences


def check_same_protocol(protocol: ProtocolRecord, candidate: ProtocolRecord, folder: Path) -> None:
    """Raise `StorageError` with the differences if the folder's protocol is another one."""
    if protocol.fingerprint != candidate.fingerprint:
        differences = ", ".join(diff_protocols(protocol, candidate)) or "the fingerprint"
        raise StorageError(
            f"{folder} was measured with another protocol, which differs in {differences}; only "
            "results of one protocol can be compared"
        )


def check_rows_match(protocol: ProtocolRecord, rows: StoredRows, folder: Path) -> None:
    """Refuse a protocol and stored rows of different tables.

    Raises:
        StorageError: with the remedy.
    """
    shape = (protocol.rows, len(protocol.labels))
    fits = rows.codes.shape == shape and len(rows.ids) == len(rows.groups) == protocol.rows
    if not fits:
        raise StorageError(
            f"{folder}: protocol.json and rows.safetensors are of different tables; repeat the "
            "same toxbench run to repair them, without training"
        )


def check_cell_shape(
    protocol: ProtocolRecord, record: CellRecord, tensors: Mapping[Part, npt.NDArray[np.float32]]
) -> None:
    """Refuse a cell of this protocol whose probabilities are of other rows or labels.

    Raises:
        StorageError: with the remedy.
    """
    if record.fingerprint != protocol.fingerprint:
        return  # `summarize_cells` refuses it
    folds = protocol.folds
    fold = folds[record.key.fold] if 0 <= record.key.fold < len(folds) else None
    labels = len(protocol.labels)
    fits = fold is not None and all(
        tensors[part].shape == (len(getattr(fold, part)), labels) for part in PARTS
    )
    fits = fits and len(record.thresholds.get(FIXED_RULE, ())) == labels
    if not fits:
        raise StorageError(
            f"cell {record.key.stem} has other rows or labels than its protocol; remove its file "
            "and run the same command again"
        )


def _describe_split(protocol: ProtocolRecord) -> str:
    tested = sum(len(fold.test) for fold in protocol.folds)
    folds = len(protocol.folds)
    return f"{folds} folds, {tested} test rows" if folds > 1 else f"{tested} test rows"
