"""Folds in a JSON file, by id: the same rows again, on another machine or in another order."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from toxbench.data.protocol import Protocol, Split
from toxbench.data.readers import safe_name
from toxbench.data.table import TextDataset
from toxbench.errors import DataError, StorageError
from toxbench.records import PARTS, StoredRecord
from toxbench.settings import FrozenModel, SplitSettings
from toxbench.util.atomic import write_atomically


class TableFacts(FrozenModel):
    """What makes two tables the same whatever the order of their rows and labels.

    ``ids``, ``texts`` and ``targets`` are sha256 in hex, taken in the order of the ids and of the
    labels' names.
    """

    rows: int
    labels: tuple[str, ...]
    ids: str
    texts: str
    targets: str


class FoldIds(FrozenModel):
    """Ids of the rows of each part, in the order in which they are used."""

    train: tuple[str, ...] = Field(min_length=1)
    validation: tuple[str, ...]
    test: tuple[str, ...] = Field(min_length=1)


class SplitFile(StoredRecord):
    """What a split file holds: which table it is for, how it was drawn, and the folds."""

    name: str
    data_fingerprint: str
    table: TableFacts
    settings: SplitSettings
    folds: tuple[FoldIds, ...] = Field(min_length=1)


def read_split_file(path: Path) -> SplitFile | None:
    """Read a split file; None where there is no such file.

    Raises:
        DataError: it cannot be read, or is none.
        NewerVersionError: a newer toxbench wrote it.
    """
    try:
        return SplitFile.from_json(path.read_bytes(), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"])) or "the whole"
        raise DataError(
            f"{path}: not a split file of toxbench: {at}: {first['msg'].lower()}; remove it, and "
            "the folds are drawn and written again"
        ) from error


def write_split_file(
    path: Path, comments: TextDataset, folds: Iterable[Split], settings: SplitSettings
) -> None:
    """Write drawn folds; a file that says the same already stays as it is.

    Raises:
        StorageError: the file cannot be written, or another run has written other folds to it.
    """
    ids = comments.ids
    content = SplitFile(
        name=comments.name,
        data_fingerprint=Protocol(comments, (), {}).data_fingerprint,
        table=_facts(comments),
        settings=settings.model_copy(update={"split_file": None}),
        folds=tuple(
            FoldIds(**{part: tuple(ids[row] for row in fold.part(part).tolist()) for part in PARTS})
            for fold in folds
        ),
    )
    there = read_split_file(path)
    if there is None:
        data = content.model_dump_json(indent=1, exclude_none=True)
        write_atomically(path, data.encode("utf-8"))
    elif there.folds != content.folds:
        raise StorageError(f"{path}: another run has just written other folds to it; start again")


def folds_from_file(path: Path, file: SplitFile, comments: TextDataset) -> tuple[Split, ...]:
    """Find the rows of a split file's ids in a table.

    Raises:
        DataError: the file was written for another table; an id is unknown, stands twice in a
            fold or in none of its parts, or is tested in two folds.
    """
    differing = list(_differences(file.table, _facts(comments)))
    if differing:
        raise DataError(
            f"{path}: written for another table, {file.name!r}: {'; '.join(differing)}; "
            "name another split file"
        )
    problem = next(_problems(file, set(comments.ids)), None)
    if problem is not None:
        raise DataError(f"{path}: {problem}; mend it, or remove the file")
    numbers = {name: row for row, name in enumerate(comments.ids)}
    return tuple(
        Split(*(np.array([numbers[name] for name in ids], dtype=np.int64) for ids in _parts(fold)))
        for fold in file.folds
    )


def _parts(fold: FoldIds) -> tuple[tuple[str, ...], ...]:
    return fold.train, fold.validation, fold.test


def _differences(there: TableFacts, here: TableFacts) -> Iterator[str]:
    """Name what differs; with other rows or labels, what hangs on them says nothing more."""
    if there.rows != here.rows:
        yield f"it has {there.rows} rows, this one {here.rows}"
    elif there.ids != here.ids:
        yield "other ids"
    elif there.texts != here.texts:
        yield "other texts"
    if there.labels != here.labels:
        yield "other labels"
    elif (there.rows, there.ids) == (here.rows, here.ids) and there.targets != here.targets:
        yield "other values of labels"


def _problems(file: SplitFile, known: set[str]) -> Iterator[str]:
    if len(file.folds) != file.settings.folds:
        yield f"{len(file.folds)} folds are there, its settings say {file.settings.folds}"
    tested: dict[str, int] = {}
    for number, fold in enumerate(file.folds):
        seen: dict[str, str] = {}
        for part, ids in zip(PARTS, _parts(fold), strict=True):
            for name in ids:
                where = f"fold {number}, {part}: id {safe_name(name, 'a text')}"
                if name not in known:
                    yield f"{where} is not in the table"
                if name in seen:
                    yield f"{where} stands in {seen[name]}, too"
                seen[name] = part
        if len(seen) < len(known):
            left = min(known - seen.keys())
            yield f"fold {number}: id {safe_name(left, 'a text')} is in no part"
        for name in fold.test:
            if tested.setdefault(name, number) != number:
                quoted = safe_name(name, "a text")
                yield f"id {quoted} is tested in fold {tested[name]} and in fold {number}"


def _facts(comments: TextDataset) -> TableFacts:
    rows = np.array(sorted(range(len(comments)), key=comments.ids.__getitem__), dtype=np.int64)
    columns = sorted(range(len(comments.labels)), key=comments.labels.__getitem__)
    ordered = comments.take(rows)
    targets = np.ascontiguousarray(ordered.targets[:, columns], dtype=np.uint8)
    return TableFacts(
        rows=len(comments),
        labels=tuple(comments.labels[column] for column in columns),
        ids=_sha256(ordered.ids),
        texts=_sha256(ordered.texts),
        targets=hashlib.sha256(targets.tobytes()).hexdigest(),
    )


def _sha256(values: Iterable[str]) -> str:
    """Digest texts, each after its length."""
    digest = hashlib.sha256()
    for value in values:
        data = value.encode("utf-8")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
