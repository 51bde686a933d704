"""Whether two folders of results were measured alike, and what differs if not."""

from pathlib import Path

from toxbench.errors import StorageError
from toxbench.store.cells import ProtocolRecord


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


def _split(protocol: ProtocolRecord) -> str:
    tested = sum(len(fold.test) for fold in protocol.folds)
    folds = len(protocol.folds)
    return f"{folds} folds, {tested} test rows" if folds > 1 else f"{tested} test rows"
