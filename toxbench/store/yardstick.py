"""Whether two folders of results were measured alike, and what differs if not."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toxbench.errors import StorageError
from toxbench.records import PARTS, CellRecord, Part
from toxbench.store.cells import ProtocolRecord
from toxbench.store.rows import StoredRows


def what_differs(one: ProtocolRecord, other: ProtocolRecord) -> list[str]:
    """Name what makes two protocols different, in words."""
    found: list[str] = []
    if one.data_fingerprint != other.data_fingerprint:
        tables = (f"{p.name} with {p.rows} rows" for p in (one, other))
        found.append(f"the table ({' and '.join(tables)})")
    if one.labels != other.labels:
        odd = sorted(set(one.labels) ^ set(other.labels))
        found.append(f"the labels ({', '.join(odd) or 'their order'})")
    if one.folds != other.folds:
        found.append(f"the split ({' and '.join(_split(p) for p in (one, other))})")
    names = sorted({*one.definitions, *other.definitions})
    changed = [n for n in names if one.definitions.get(n) != other.definitions.get(n)]
    if changed:
        found.append(f"the definition of {', '.join(changed)}")
    return found


def refuse_another(one: ProtocolRecord, other: ProtocolRecord, folder: Path) -> None:
    """Refuse results that another protocol measured.

    Raises:
        StorageError: naming what differs.
    """
    if one.fingerprint != other.fingerprint:
        differing = ", ".join(what_differs(one, other)) or "the fingerprint"
        raise StorageError(
            f"{folder} was measured with another protocol: different are {differing}; scores of "
            "two yardsticks are not compared"
        )


def refuse_unfitting(protocol: ProtocolRecord, rows: StoredRows, folder: Path) -> None:
    """Refuse a protocol whose table is another than the stored rows are of.

    Raises:
        StorageError: what to do.
    """
    shape = (protocol.rows, len(protocol.labels))
    fits = rows.targets.shape == shape and len(rows.ids) == len(rows.groups) == protocol.rows
    parts = (getattr(fold, part) for fold in protocol.folds for part in PARTS)
    in_table = all(min(rows) >= 0 and max(rows) < protocol.rows for rows in parts if rows)
    names = [set(protocol.supports), *map(set, protocol.test_supports)]
    named = all(own == set(protocol.labels) for own in names)
    if not (fits and in_table and named and len(protocol.test_supports) == len(protocol.folds)):
        raise StorageError(
            f"{folder}: protocol.json and rows.safetensors are not of the same table; the same "
            "toxbench run again mends them, without training"
        )


def refuse_misshapen(
    protocol: ProtocolRecord, record: CellRecord, tensors: Mapping[Part, npt.NDArray[np.float32]]
) -> None:
    """Refuse a cell of this protocol whose probabilities are of other rows or labels.

    Raises:
        StorageError: what to do.
    """
    if record.fingerprint != protocol.fingerprint:
        return  # is told in other words
    folds = protocol.folds
    fold = folds[record.key.fold] if 0 <= record.key.fold < len(folds) else None
    fits = fold is not None and all(
        tensors[part].shape == (len(getattr(fold, part)), len(protocol.labels)) for part in PARTS
    )
    if not fits:
        raise StorageError(
            f"cell {record.key.stem} has other rows or labels than its protocol; remove its file "
            "and run the same command again"
        )


def _split(protocol: ProtocolRecord) -> str:
    tested = sum(len(fold.test) for fold in protocol.folds)
    folds = len(protocol.folds)
    return f"{folds} folds, {tested} test rows" if folds > 1 else f"{tested} test rows"
