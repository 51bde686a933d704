"""A table and its folds, wherever they come from: drawn, from a split file, or as given."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from toxbench.data.protocol import Split
from toxbench.data.readers import MAX_PROBLEMS, names_to_show, read_strings, safe_name, safe_value
from toxbench.data.split_file import folds_from_file, read_split_file, write_split_file
from toxbench.data.splits import draw_folds, hold_out_validation
from toxbench.data.synthetic import sample_comments
from toxbench.data.table import (
    TextDataset,
    comments_from_frame,
    looks_like_label,
    read_comments,
)
from toxbench.data.text_array import TextArray
from toxbench.errors import DataError, SettingsError, did_you_mean
from toxbench.records import PARTS
from toxbench.settings import SPLIT_FIELDS, ColumnSettings, SplitSettings, normalize_word

_WORDS = {
    "train": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class GivenSplit:
    """A table that came with its split; ``drawn``: its validation rows were not part of that."""

    comments: TextDataset
    fold: Split
    drawn: bool


def read_files(data: Path, columns: ColumnSettings, settings: SplitSettings) -> GivenSplit:
    """Read a table whose parts are files: ``data`` for training, and those that settings name.

    Rows are in the order train, validation, test. Without a file of validation rows they are
    drawn out of the train rows.

    Raises:
        DataError: as `read_comments`; a file lacks a column of ``data`` or has a label more; two
            rows have one id.
    """
    first = read_comments(data, columns)
    named = [path for path in (settings.valid, settings.test) if path is not None]
    tables = [first, *(_read_like(first, path, columns) for path in named)]
    problems = list(islice(_repeated_ids([data, *named], tables), MAX_PROBLEMS))
    if problems:
        raise DataError(problems)
    ends = np.cumsum([len(table) for table in tables])
    parts = np.split(np.arange(ends[-1], dtype=np.int64), ends[:-1])
    validation = parts[1] if settings.valid is not None else parts[0][:0]
    return _official(_joined(tables), Split(parts[0], validation, parts[-1]), settings)


def read_column(
    data: Path, columns: ColumnSettings, name: str, settings: SplitSettings
) -> GivenSplit:
    """Read a table with a column that says train, validation (valid, val, dev) or test.

    Without a row for validation they are drawn out of the train rows.

    Raises:
        DataError: as `read_comments`; the column is not there, is blank somewhere or says
            something else; no row is for training or none for test.
    """
    frame = read_strings(data, columns.encoding)
    if name not in frame.columns:
        near = did_you_mean(name, names_to_show(frame.columns))
        raise DataError(f"{data}: no column is called {name!r}{near}")
    roles = (columns.text_column, columns.id_column, columns.group_column, *columns.labels)
    if name in roles:
        raise DataError(f"{data}: column {name!r} was named for two roles; name another")
    comments = comments_from_frame(frame.drop(columns=[name]), data.name, str(data), columns)
    words = frame[name].astype("str").iloc[comments.numbers - 1].fillna("").map(normalize_word)
    problems = list(islice(_bad_words(words, str(data), name), MAX_PROBLEMS))
    if problems:
        raise DataError(problems)
    part = words.map(_WORDS).to_numpy()
    fold = Split(*(np.flatnonzero(part == which).astype(np.int64) for which in PARTS))
    for which, rows in (("train", fold.train), ("test", fold.test)):
        if not len(rows):
            raise DataError(f"{data}: column {name!r} says {which!r} of no row; it needs some")
    return _official(comments, fold, settings)


def _official(comments: TextDataset, fold: Split, settings: SplitSettings) -> GivenSplit:
    """Take a split as it is, but for validation rows that it does not have."""
    if len(fold.validation):
        return GivenSplit(comments, fold, drawn=False)
    try:
        fold = hold_out_validation(comments, fold.train, fold.test, settings)
    except ValueError as error:
        groups = ", or their groups," if settings.split == "grouped" else ""
        raise DataError(
            f"{len(fold.train)} train rows{groups} are too few to hold out validation "
            f"{settings.validation_size:g} of them; name validation rows, or change the fraction"
        ) from error
    return GivenSplit(comments, fold, drawn=len(fold.validation) > 0)


def _bad_words(words: "pd.Series[Any]", where: str, name: str) -> Iterator[str]:
    for row, word in words[~words.isin(list(_WORDS))].items():
        problem = f"{safe_value(word)} is no part" if word else "the part is blank"
        yield (
            f"{where}: row {int(str(row)) + 1}, column {name!r}: {problem}; "
            "write train, validation or test"
        )


def _read_like(first: TextDataset, path: Path, columns: ColumnSettings) -> TextDataset:
    """Read a further file with the columns of the first one, which need not be in its order."""
    frame = read_strings(path, columns.encoding)
    names = dict.fromkeys((*first.columns.values(), *first.labels))
    used = [name for name in names if name is not None]
    _check_columns(frame, path, first, used, columns)
    roles = {f"{role}_column": name for role, name in first.columns.items()}
    same = columns.model_copy(update={**roles, "labels": first.labels})
    comments = comments_from_frame(frame[used], path.name, str(path), same)
    return replace(comments, ignored=tuple(name for name in frame.columns if name not in used))


def _check_columns(
    frame: pd.DataFrame,
    path: Path,
    first: TextDataset,
    used: Sequence[str],
    columns: ColumnSettings,
) -> None:
    """Refuse another set of columns; labels that were named are all that is wanted."""
    known = {*used, *first.ignored}
    missing = [name for name in used if name not in frame.columns]
    others = [] if columns.labels else [name for name in frame.columns if name not in known]
    extra = [name for name in others if looks_like_label(frame[name], columns)]
    problems: list[str] = []
    if missing:
        names = ", ".join(map(safe_name, missing))
        problems.append(f"{path}: columns of {first.name!r} are missing: {names}; add them")
    if extra:
        names = ", ".join(map(safe_name, extra))
        problems.append(
            f"{path}: label columns that {first.name!r} has not: {names}; remove them, or name "
            "the labels with --labels"
        )
    if problems:
        raise DataError(problems)


def _repeated_ids(paths: Sequence[Path], tables: Sequence[TextDataset]) -> Iterator[str]:
    """Yield ids that stand in two files; one file alone was checked already."""
    column = tables[0].columns["id"]
    if column is None:
        return
    seen: dict[str, tuple[Path, int]] = {}
    for path, table in zip(paths, tables, strict=True):
        for row, name in zip(table.numbers.tolist(), table.ids, strict=True):
            other, at = seen.setdefault(name, (path, row))
            if other is not path:
                yield (
                    f"{path}: row {row}, column {column!r}: the same id as in row {at} of {other}; "
                    "a row belongs to one part, and an id to one row"
                )


def _joined(tables: Sequence[TextDataset]) -> TextDataset:
    """Put tables below one another, and count their rows through: ids that were made up, too."""
    first = tables[0]
    sizes = [len(table) + len(table.dropped) for table in tables]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    pairs = list(zip(starts, tables, strict=True))
    numbers = chain.from_iterable((start + table.numbers).tolist() for start, table in pairs)
    ids = chain.from_iterable(table.ids for table in tables)
    targets: npt.NDArray[np.uint8] = np.concatenate([table.targets for table in tables])
    return replace(
        first,
        ids=TextArray.of(ids if first.columns["id"] is not None else map(str, numbers)),
        texts=TextArray.of(chain.from_iterable(table.texts for table in tables)),
        targets=targets,
        groups=None
        if first.groups is None
        else TextArray.of(chain.from_iterable(table.groups or () for table in tables)),
        ignored=tuple(dict.fromkeys(chain.from_iterable(table.ignored for table in tables))),
        dropped=tuple(start + row for start, table in pairs for row in table.dropped),
    )


@dataclass(frozen=True, eq=False)
class SplitDataset:
    """A table with its folds.

    Attributes:
        comments: the validated table.
        folds: one or several splits of its rows.
        settings: how its rows were drawn, where they were; of a split file, what it says.
        origin: how the folds came about, for people.
        unwritten: the split file that is to be written; None: there is none.
    """

    comments: TextDataset
    folds: tuple[Split, ...]
    settings: SplitSettings
    origin: str
    unwritten: Path | None = None

    def write(self) -> None:
        """Write the split file, if one was asked for; raises `StorageError`."""
        if self.unwritten is not None:
            write_split_file(self.unwritten, self.comments, self.folds, self.settings)


def load_dataset(
    data: Path | None,
    columns: ColumnSettings,
    settings: SplitSettings,
    asked: frozenset[str] = frozenset(),
) -> SplitDataset:
    """Read a table, and split it as settings say; write nothing.

    Args:
        data: a file; None: the synthetic sample.
        columns: what its columns mean.
        settings: how it is split.
        asked: settings that the user set, which a split file must not contradict.

    Raises:
        DataError: the table or the split file cannot be used, or there are too few rows.
        SettingsError: the split file was drawn with other settings than those that were asked for.
    """
    if data is not None and settings.test is not None:
        files = " and ".join(p.name for p in (settings.valid, settings.test) if p is not None)
        return _as_given(read_files(data, columns, settings), settings, files)
    if data is not None and settings.split_column is not None:
        name = settings.split_column
        official = read_column(data, columns, name, settings)
        return _as_given(official, settings, f"column {name!r}")
    comments = sample_comments() if data is None else read_comments(data, columns)
    if settings.split_file is not None:
        return _with_file(comments, settings.split_file, settings, asked)
    return SplitDataset(comments, draw_folds(comments, settings), settings, settings.split)


def _as_given(official: GivenSplit, settings: SplitSettings, by: str) -> SplitDataset:
    drawn = f", validation rows {settings.split} out of train" if official.drawn else ""
    return SplitDataset(official.comments, (official.fold,), settings, f"official, by {by}{drawn}")


def _with_file(
    comments: TextDataset, path: Path, settings: SplitSettings, asked: frozenset[str]
) -> SplitDataset:
    file = read_split_file(path)
    if file is None:
        origin = f"{settings.split}, to be written to {path}"
        return SplitDataset(comments, draw_folds(comments, settings), settings, origin, path)
    for name in SPLIT_FIELDS:
        there, here = getattr(file.settings, name), getattr(settings, name)
        if name in asked and there != here:
            raise SettingsError(
                f"{path} was drawn with {name} = {there}, not {here}; leave that out, or name "
                "another split file"
            )
    origin = f"{file.settings.split}, read from {path}"
    return SplitDataset(comments, folds_from_file(path, file, comments), file.settings, origin)
