"""Loading of a table with its folds: drawn, read from a split file, or official.

An official split comes with the table, as a file for each part or as a column with the parts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toxbench.data.columns import check_column
from toxbench.data.label_values import LabelValues, looks_like_label, safe_label
from toxbench.data.protocol import Split, folds_from_file, read_split_file, write_split_file
from toxbench.data.readers.input_file import MAX_PROBLEMS
from toxbench.data.samples import sample_comments
from toxbench.data.sources import PART_NAMES, SourceTable, read_source
from toxbench.data.splits import draw_folds, hold_out_validation
from toxbench.data.table import TextDataset, comments_from_frame
from toxbench.data.text_array import TextArray
from toxbench.errors import DataError, SettingsError
from toxbench.records import PARTS
from toxbench.settings import SPLIT_FIELDS, ColumnSettings, SplitSettings, normalize_word
from toxbench.util.table_source import TableSource
from toxbench.util.text import safe_quote


@dataclass(frozen=True, eq=False)
class SplitDataset:
    """A table with its folds.

    Attributes:
        comments: the validated table.
        folds: one or several splits of its rows.
        settings: split settings; those in the split file if the folds were read from one.
        origin: how the folds were made, for display.
        new_split_file: the split file to write; None if there is nothing to write.
    """

    comments: TextDataset
    folds: tuple[Split, ...]
    settings: SplitSettings
    origin: str
    new_split_file: Path | None = None

    def write(self) -> None:
        """Write the split file, if it is a new one; raises `StorageError`."""
        if self.new_split_file is not None:
            write_split_file(self.new_split_file, self.comments, self.folds, self.settings)


def load_dataset(
    data: TableSource | None,
    columns: ColumnSettings,
    settings: SplitSettings,
    explicit: frozenset[str] = frozenset(),
) -> SplitDataset:
    """Read a table, by default the synthetic sample, and split it. Nothing is written.

    The ``explicit`` split settings, those that the user set, must agree with the settings in an
    existing split file.

    Raises:
        DataError: the table or the split file cannot be used, or there are too few rows.
        SettingsError: the split file was drawn with other settings than the explicit ones.
    """
    if data is None:
        return _split_by_settings(sample_comments(), settings, explicit)
    if settings.test is not None:
        return read_part_files(data, columns, settings)
    table = read_source(data, columns.encoding)
    clash = sorted(explicit & {"folds", "test_size", "split_file"}) if table.part_column else []
    if clash:
        raise SettingsError(
            f"{table.name} has an official split; leave out {', '.join(clash)}, or give one table"
        )
    part_column = settings.split_column or table.part_column
    if part_column is not None:
        return _split_by_column(table, columns, part_column, settings)
    comments = comments_from_frame(table.frame, table.name, table.location, columns)
    return _split_by_settings(comments, settings, explicit)


def read_part_files(
    data: TableSource, columns: ColumnSettings, settings: SplitSettings
) -> SplitDataset:
    """Read an official split with one file for each part.

    Rows are in the order train, validation, test. Without a file of validation rows they are
    drawn out of the train rows.

    Raises:
        DataError: as `read_comments`; or a file lacks a column of ``data``, a file has additional
            labels, or two rows have the same id.
    """
    table = read_source(data, columns.encoding)
    first = comments_from_frame(table.frame, table.name, table.location, columns)
    part_files = [path for path in (settings.valid, settings.test) if path is not None]
    tables = [first, *(_read_part_file(first, path, columns) for path in part_files)]
    locations = [table.location, *map(str, part_files)]
    problems = list(islice(_repeated_ids(locations, tables), MAX_PROBLEMS))
    if problems:
        raise DataError(problems)
    ends = np.cumsum([len(table) for table in tables])
    parts = np.split(np.arange(ends[-1], dtype=np.int64), ends[:-1])
    validation = parts[1] if settings.valid is not None else parts[0][:0]
    fold = Split(parts[0], validation, parts[-1])
    source = " and ".join(path.name for path in part_files)
    return _official_dataset(_concatenate(tables), fold, settings, source)


def _split_by_column(
    table: SourceTable, columns: ColumnSettings, name: str, settings: SplitSettings
) -> SplitDataset:
    """Take an official split from a column with train, validation (valid, val, dev) or test.

    Without validation rows in the column they are drawn out of the train rows.

    Raises:
        DataError: as `read_comments`; or the column is missing, has a blank or unknown value, or
            has no train row or no test row.
    """
    frame, source = table.frame, table.location
    check_column(frame, source, name)
    roles = (columns.text_column, columns.id_column, columns.group_column, *columns.labels)
    if name in (*roles, columns.labels_column):
        raise DataError(f"{source}: column {name!r} was named for two roles; name another")
    comments = comments_from_frame(frame.drop(columns=[name]), table.name, source, columns)
    cells = frame[name].astype("str").iloc[comments.row_numbers - 1]
    values = cells.fillna("").map(normalize_word)
    problems = list(islice(_unknown_parts(values, source, name), MAX_PROBLEMS))
    if problems:
        raise DataError(problems)
    part_of_row = values.map(PART_NAMES).to_numpy()
    fold = Split(*(np.flatnonzero(part_of_row == part).astype(np.int64) for part in PARTS))
    for part, rows in (("train", fold.train), ("test", fold.test)):
        if not len(rows):
            raise DataError(f"{source}: column {name!r} has no {part} row; mark at least one")
    return _official_dataset(comments, fold, settings, f"column {name!r}")


def _split_by_settings(
    comments: TextDataset, settings: SplitSettings, explicit: frozenset[str]
) -> SplitDataset:
    """Draw folds, or take them from a split file; drawn folds are written to a missing file."""
    path = settings.split_file
    if path is None:
        return SplitDataset(comments, draw_folds(comments, settings), settings, settings.split)
    file = read_split_file(path)
    if file is None:
        origin = f"{settings.split}, for the new split file {path}"
        return SplitDataset(comments, draw_folds(comments, settings), settings, origin, path)
    for name in SPLIT_FIELDS:
        stored, requested = getattr(file.settings, name), getattr(settings, name)
        if name in explicit and stored != requested:
            raise SettingsError(
                f"{path} was drawn with {name} = {stored}, not {requested}; remove that setting, "
                "or name another split file"
            )
    origin = f"{file.settings.split}, read from {path}"
    return SplitDataset(comments, folds_from_file(path, file, comments), file.settings, origin)


def _official_dataset(
    comments: TextDataset, fold: Split, settings: SplitSettings, source: str
) -> SplitDataset:
    """Draw validation rows out of the train rows if the official fold has none."""
    origin = f"official, by {source}"
    if len(fold.validation):
        return SplitDataset(comments, (fold,), settings, origin)
    try:
        fold = hold_out_validation(comments, fold.train, fold.test, settings)
    except ValueError as error:
        groups = ", or their groups," if settings.split == "grouped" else ""
        raise DataError(
            f"{len(fold.train)} train rows{groups} are too few to hold out validation "
            f"{settings.validation_size:g} of them; name validation rows, or change the fraction"
        ) from error
    if len(fold.validation):
        origin += f", validation rows {settings.split} out of train"
    return SplitDataset(comments, (fold,), settings, origin)


def _unknown_parts(values: "pd.Series[Any]", source: str, name: str) -> Iterator[str]:
    """Yield a problem for each value that is not a part; the index counts rows from 0."""
    is_part = values.isin(list(PART_NAMES))
    for row, value in values[~is_part].items():
        shown = safe_label(value, float(is_part.mean()))
        problem = f"{shown} is not a part" if value else "the part is blank"
        yield (
            f"{source}: row {int(str(row)) + 1}, column {name!r}: {problem}; "
            "write train, validation or test"
        )


def _read_part_file(first: TextDataset, path: Path, columns: ColumnSettings) -> TextDataset:
    """Read another part with the columns of the first table, in any order."""
    table = read_source(path, columns.encoding)
    frame = table.frame
    set_column = first.columns.get("labels")
    names = dict.fromkeys(
        (*first.columns.values(), *(() if set_column is not None else first.labels))
    )
    used = [name for name in names if name is not None]
    _check_columns(frame, path, first, used, columns)
    roles = {f"{role}_column": name for role, name in first.columns.items()}
    resolved = columns.model_copy(update={**roles, "labels": first.labels})
    comments = comments_from_frame(frame[used], table.name, table.location, resolved)
    ignored_columns = tuple(name for name in frame.columns if name not in used)
    return replace(comments, ignored_columns=ignored_columns)


def _check_columns(
    frame: pd.DataFrame, path: Path, first: TextDataset, used: list[str], columns: ColumnSettings
) -> None:
    """Refuse missing columns, and additional labels unless the user named the labels."""
    expected = {*used, *first.ignored_columns}
    missing = [name for name in used if name not in frame.columns]
    is_complete = columns.labels or "labels" in first.columns
    additional = [] if is_complete else [n for n in frame.columns if n not in expected]
    meaning = LabelValues.of(columns)
    extra_labels = [name for name in additional if looks_like_label(frame[name], meaning)]
    problems: list[str] = []
    if missing:
        names = ", ".join(map(safe_quote, missing))
        problems.append(f"{path}: columns of {first.name!r} are missing: {names}; add them")
    if extra_labels:
        names = ", ".join(map(safe_quote, extra_labels))
        problems.append(
            f"{path}: label columns that are not in {first.name!r}: {names}; remove them, or name "
            "the labels with --labels"
        )
    if problems:
        raise DataError(problems)


def _repeated_ids(locations: Sequence[str], tables: Sequence[TextDataset]) -> Iterator[str]:
    """Yield a problem for each id in two files; ids within a file are unique already."""
    column = tables[0].columns["id"]
    if column is None:
        return
    first_uses: dict[str, tuple[str, int]] = {}
    for path, table in zip(locations, tables, strict=True):
        for row, row_id in zip(table.row_numbers.tolist(), table.ids, strict=True):
            first_path, first_row = first_uses.setdefault(row_id, (path, row))
            if first_path != path:
                yield (
                    f"{path}: row {row}, column {column!r}: the same id as in row {first_row} of "
                    f"{first_path}; remove one of the two rows, or give it another id"
                )


def _concatenate(tables: Sequence[TextDataset]) -> TextDataset:
    """Concatenate tables; row numbers, and ids that are row numbers, count through all of them."""
    first = tables[0]
    sizes = [len(table) + len(table.dropped_rows) for table in tables]
    pairs = list(zip(accumulate(sizes, initial=0), tables, strict=False))
    numbers = chain.from_iterable((start + table.row_numbers).tolist() for start, table in pairs)
    ids = chain.from_iterable(table.ids for table in tables)
    ignored_columns = chain.from_iterable(table.ignored_columns for table in tables)
    return replace(
        first,
        ids=TextArray.from_texts(ids if first.columns["id"] is not None else map(str, numbers)),
        texts=TextArray.from_texts(chain.from_iterable(table.texts for table in tables)),
        codes=np.concatenate([table.codes for table in tables]),
        groups=None
        if first.groups is None
        else TextArray.from_texts(chain.from_iterable(table.groups or () for table in tables)),
        ignored_columns=tuple(dict.fromkeys(ignored_columns)),
        notes=tuple(dict.fromkeys(chain.from_iterable(table.notes for table in tables))),
        dropped_rows=tuple(start + row for start, table in pairs for row in table.dropped_rows),
    )
