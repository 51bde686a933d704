"""The parts of a table, the fingerprint of table and split, and split files.

A split file is JSON with folds by row id, so that it holds for any order of the rows.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from toxbench.data.table import TextDataset
from toxbench.errors import DataError, StorageError
from toxbench.records import PARTS, Part, StoredRecord
from toxbench.settings import FrozenModel, SplitSettings
from toxbench.util.arrays import Rows
from toxbench.util.atomic import write_atomically
from toxbench.util.content import update_with_texts
from toxbench.util.text import safe_keys, safe_quote


@dataclass(frozen=True, eq=False)
class Split:
    """Row indices of one fold; no row is in two parts. ``validation`` may be empty."""

    train: Rows
    validation: Rows
    test: Rows

    def part(self, name: Part) -> Rows:
        """Return the row indices of one part."""
        rows: Rows = getattr(self, name)
        return rows


@dataclass(frozen=True, eq=False)
class Protocol:
    """A table and its split: cells of the same protocol can be compared.

    Attributes:
        comments: the validated table.
        folds: one or several splits of its rows.
    """

    comments: TextDataset
    folds: tuple[Split, ...]

    @cached_property
    def data_fingerprint(self) -> str:
        """Sha256 over ids, texts, label names and targets: the table alone."""
        digest = hashlib.sha256()
        _update(digest, "ids", self.comments.ids)
        _update(digest, "texts", self.comments.texts)
        _update(digest, "labels", self.comments.labels)
        digest.update(np.ascontiguousarray(self.comments.codes, dtype=np.uint8).tobytes())
        return digest.hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over the table and every fold's row indices: 64 hex digits.

        Lengths come before contents and integers are little-endian, so that the same table gives
        the same fingerprint on any machine, from any file format.
        """
        folds = ([fold.part(part) for part in PARTS] for fold in self.folds)
        return fingerprint(self.data_fingerprint, folds)


def fingerprint(data: str, folds: Iterable[Iterable[npt.ArrayLike]]) -> str:
    """Return the fingerprint of a protocol.

    Args:
        data: fingerprint of the table.
        folds: row indices of each part of each fold, in the order of `PARTS`.
    """
    digest = hashlib.sha256(data.encode("ascii"))
    for parts in folds:
        for part in parts:
            rows = np.asarray(part, dtype="<i8")
            digest.update(len(rows).to_bytes(8, "little") + rows.tobytes())
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", name: str, values: Sequence[str]) -> None:
    digest.update(f"{name}:{len(values)}:".encode("ascii"))
    update_with_texts(digest, values)


class TableDigests(FrozenModel):
    """Facts that identify a table regardless of the order of its rows and labels.

    ``ids``, ``texts`` and ``targets`` are sha256 in hex, computed in the order of the sorted ids
    and label names.
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
    """Content of a split file: its table, the settings of the split, and the folds."""

    name: str
    data_fingerprint: str
    table: TableDigests
    settings: SplitSettings
    folds: tuple[FoldIds, ...] = Field(min_length=1)


def read_split_file(path: Path) -> SplitFile | None:
    """Read a split file; return None if it does not exist.

    Raises:
        DataError: it cannot be read, or is not a split file.
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
        field = safe_keys(first["loc"]) or "the whole file"
        raise DataError(
            f"{path}: not a split file of toxbench: {field}: {first['msg'].lower()}; remove it to "
            "draw and write the folds again"
        ) from None  # it holds all keys of the file


def write_split_file(
    path: Path, comments: TextDataset, folds: Iterable[Split], settings: SplitSettings
) -> None:
    """Write drawn folds; leave an existing file with the same folds unchanged.

    Raises:
        StorageError: the file cannot be written, or another run has written other folds to it.
    """
    ids = comments.ids
    content = SplitFile(
        name=comments.name,
        data_fingerprint=Protocol(comments, ()).data_fingerprint,
        table=_table_digests(comments),
        settings=settings.model_copy(update={"split_file": None}),
        folds=tuple(
            FoldIds(**{part: tuple(ids[row] for row in fold.part(part).tolist()) for part in PARTS})
            for fold in folds
        ),
    )
    existing = read_split_file(path)
    if existing is None:
        data = content.model_dump_json(indent=1, exclude_none=True)
        write_atomically(path, data.encode("utf-8"))
    elif existing.folds != content.folds:
        raise StorageError(f"{path}: another run has just written other folds to it; start again")


def folds_from_file(path: Path, file: SplitFile, comments: TextDataset) -> tuple[Split, ...]:
    """Convert the ids of a split file to row indices of a table.

    Raises:
        DataError: the file was written for another table; an id is unknown, is twice or not at
            all in a fold, or is tested in two folds.
    """
    differences = list(_differences(file.table, _table_digests(comments)))
    if differences:
        raise DataError(
            f"{path}: written for another table, {file.name!r}: {'; '.join(differences)}; "
            "name another split file"
        )
    problem = next(_problems(file, set(comments.ids)), None)
    if problem is not None:
        raise DataError(f"{path}: {problem}; correct or remove the file")
    row_by_id = {row_id: row for row, row_id in enumerate(comments.ids)}
    return tuple(
        Split(*(np.array([row_by_id[i] for i in ids], dtype=np.int64) for ids in _parts(fold)))
        for fold in file.folds
    )


def _parts(fold: FoldIds) -> tuple[tuple[str, ...], ...]:
    """Return the ids of each part, in the order of `PARTS`."""
    return fold.train, fold.validation, fold.test


def _differences(stored: TableDigests, current: TableDigests) -> Iterator[str]:
    """Yield the differences, except those that follow from other rows or labels."""
    if stored.rows != current.rows:
        yield f"it has {stored.rows} rows, this one {current.rows}"
    elif stored.ids != current.ids:
        yield "other ids"
    elif stored.texts != current.texts:
        yield "other texts"
    same_rows = (stored.rows, stored.ids) == (current.rows, current.ids)
    if stored.labels != current.labels:
        yield "other labels"
    elif same_rows and stored.targets != current.targets:
        yield "other values of labels"


def _problems(file: SplitFile, table_ids: set[str]) -> Iterator[str]:
    if len(file.folds) != file.settings.folds:
        yield f"the file has {len(file.folds)} folds, but its settings have {file.settings.folds}"
    test_fold: dict[str, int] = {}
    for number, fold in enumerate(file.folds):
        yield from _fold_problems(number, fold, table_ids)
        for row_id in fold.test:
            if test_fold.setdefault(row_id, number) != number:
                first = test_fold[row_id]
                yield f"id {_quote(row_id)} is tested in fold {first} and in fold {number}"


def _fold_problems(number: int, fold: FoldIds, table_ids: set[str]) -> Iterator[str]:
    """Yield unknown, repeated and missing ids of a fold."""
    part_of: dict[str, str] = {}
    for part, ids in zip(PARTS, _parts(fold), strict=True):
        for row_id in ids:
            location = f"fold {number}, {part}: id {_quote(row_id)}"
            if row_id not in table_ids:
                yield f"{location} is not in the table"
            if row_id in part_of:
                yield f"{location} is also in {part_of[row_id]}"
            part_of[row_id] = part
    if len(part_of) < len(table_ids):
        missing = min(table_ids - part_of.keys())
        yield f"fold {number}: id {_quote(missing)} is in no part"


def _quote(row_id: str) -> str:
    return safe_quote(row_id, "a text", words=1)


def _table_digests(comments: TextDataset) -> TableDigests:
    rows = np.array(sorted(range(len(comments)), key=comments.ids.__getitem__), dtype=np.int64)
    columns = sorted(range(len(comments.labels)), key=comments.labels.__getitem__)
    ordered = comments.take(rows)
    targets = np.ascontiguousarray(ordered.codes[:, columns], dtype=np.uint8)
    return TableDigests(
        rows=len(comments),
        labels=tuple(comments.labels[column] for column in columns),
        ids=_sha256(ordered.ids),
        texts=_sha256(ordered.texts),
        targets=hashlib.sha256(targets.tobytes()).hexdigest(),
    )


def _sha256(values: Iterable[str]) -> str:
    """Return the digest of texts, each preceded by its length."""
    digest = hashlib.sha256()
    update_with_texts(digest, values)
    return digest.hexdigest()
