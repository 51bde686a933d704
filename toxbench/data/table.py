"""The validated table of comments: reading, finding of columns, and checks of every cell."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toxbench.data.columns import Labels, find_columns, find_labels
from toxbench.data.label_values import INVALID, LabelValues, factorize
from toxbench.data.readers.formats import NOTES
from toxbench.data.readers.input_file import MAX_PROBLEMS, printable_names
from toxbench.data.sources import read_source
from toxbench.data.text_array import TextArray, take_rows
from toxbench.errors import DataError
from toxbench.settings import ColumnSettings
from toxbench.util.arrays import UNLABELLED, Codes, Targets, known_targets
from toxbench.util.table_source import TableSource
from toxbench.util.text import join_names, list_items, safe_quote

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class TextDataset:
    """A table that passed every check.

    Attributes:
        name: file name without folder, or "synthetic sample".
        ids: unique ids, ``[row]``.
        texts: non-empty texts, ``[row]``.
        codes: 0, 1, or `UNLABELLED`, read-only uint8 ``[row, label]``.
        labels: names of the columns of ``codes``.
        groups: group of each row or None, ``[row]``; None if the table has no group column.
        ignored_columns: columns of the file that are not used.
        columns: role ("text", "id", "group", and "labels" for a column of label sets) -> column
            name, found or named by the user.
        dropped_rows: numbers of the rows of the file that are left out, counted from 1.
        notes: how the table was read, one line each.
        doubtful_labels: labels that may be other facts; empty if the user named the labels.
    """

    name: str
    ids: Sequence[str]
    texts: Sequence[str]
    codes: Codes
    labels: tuple[str, ...]
    groups: Sequence[str | None] | None
    ignored_columns: tuple[str, ...]
    columns: dict[str, str | None]
    dropped_rows: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    doubtful_labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.codes.setflags(write=False)  # targets must stay as they were read

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()  # copying and pickling make the array writable again

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def targets(self) -> Targets:
        """0/1, uint8 ``[row, label]``; 0 where a row is not labelled."""
        return known_targets(self.codes)

    @property
    def supports(self) -> dict[str, int]:
        """Number of positive rows of each label."""
        counts = self.targets.sum(axis=0, dtype=np.int64)
        return dict(zip(self.labels, counts.tolist(), strict=True))

    @property
    def row_numbers(self) -> npt.NDArray[np.int64]:
        """Number of each row in its file, counted from 1, int64 ``[row]``."""
        all_numbers = np.arange(1, len(self) + len(self.dropped_rows) + 1, dtype=np.int64)
        return np.setdiff1d(all_numbers, self.dropped_rows, assume_unique=True)

    def take(self, rows: npt.NDArray[np.int64]) -> "TextDataset":
        """Return a table of these rows, in this order; other rows are not kept in memory."""
        return replace(
            self,
            ids=take_rows(self.ids, rows),
            texts=take_rows(self.texts, rows),
            codes=self.codes[rows],
            groups=None if self.groups is None else take_rows(self.groups, rows),
            dropped_rows=(),
        )


def read_comments(source: TableSource, columns: ColumnSettings | None = None) -> TextDataset:
    """Read and validate a table of comments.

    Text, id, group and label columns are found by their names and values unless ``columns``
    names them. Labels are ``0``, ``1``, ``true`` and ``false`` in any case, and the values that
    ``columns`` maps to them; or one column has the set of labels of each row.

    Args:
        source: as `read_source`.
        columns: roles of the columns and the meaning of their values.

    Raises:
        DataError: with up to ten problems, each with the file, the row (counted from 1, without
            the header), the column and how to correct it.
    """
    columns = columns or ColumnSettings()
    table = read_source(source, columns.encoding)
    return comments_from_frame(table.frame, table.name, table.location, columns)


def comments_from_frame(
    frame: "pd.DataFrame", name: str, source: str, columns: ColumnSettings
) -> TextDataset:
    """Validate a table as `read_source` returns it; ``source`` is its location, for messages.

    Raises:
        DataError: as `read_comments`.
    """
    text, row_id, group = find_columns(frame, source, columns)
    labels = find_labels(frame, source, columns, {text, row_id, group})
    meaning = LabelValues.of(columns)
    codes = _label_codes(labels.frame, meaning)
    is_dropped = is_blank(frame[text]) & columns.drop_empty
    is_unlabelled = codes == UNLABELLED
    is_dropped |= (
        is_unlabelled.any(axis=1) if columns.drop_unlabelled else is_unlabelled.all(axis=1)
    )
    if is_dropped.any():  # the index still counts the rows of the file
        frame, codes = frame[~is_dropped], codes[~is_dropped]
        labels = replace(labels, frame=labels.frame[~is_dropped])
    if frame.empty:
        raise DataError(
            f"{source}: no row has a text in column {text!r} and labels; check --text-column and "
            "--unlabelled"
        )
    all_problems = chain(
        empty_text_problems(frame[text], source, text),
        _id_problems(frame[row_id], frame[text], source) if row_id is not None else (),
        _label_problems(labels, codes, source, meaning),
    )
    problems = list(islice(all_problems, MAX_PROBLEMS))
    if problems:
        raise DataError(problems)
    if not (codes == 1).any():
        raise DataError(
            f"{source}: no label has a positive row; there is nothing to learn or score"
        )
    used = {text, row_id, group, *labels.columns}
    return TextDataset(
        name=name,
        ids=_ids(frame, row_id),
        texts=TextArray.from_column(frame[text].astype("str")),
        codes=codes,
        labels=tuple(labels.frame.columns),
        groups=_groups(frame, group),
        ignored_columns=tuple(column for column in frame.columns if column not in used),
        columns={"text": text, "id": row_id, "group": group, **labels.role},
        dropped_rows=tuple((np.flatnonzero(is_dropped) + 1).tolist()),
        notes=(*frame.attrs.get(NOTES, ()), *labels.notes),
        doubtful_labels=labels.doubtful,
    )


def is_blank(column: "pd.Series[Any]") -> npt.NDArray[np.bool_]:
    """Return which rows are null or white space, bool ``[row]``."""
    return column.astype("str").fillna("").str.strip().eq("").to_numpy(dtype=bool)


def empty_text_problems(column: "pd.Series[Any]", source: str, name: str) -> Iterator[str]:
    """Yield a problem for each row without a text; the index counts rows from 0."""
    for row in column.index[is_blank(column)]:
        yield (
            f"{source}: row {row + 1}, column {name!r}: the text is empty; remove the row, or all "
            "such rows with --drop-empty"
        )


def left_out_notes(comments: TextDataset) -> list[str]:
    """Return lines with the numbers of dropped rows and unlabelled entries, if there are any."""
    count = len(comments.dropped_rows)
    reasons = "without a text or labels (--drop-empty, --unlabelled)"
    notes = [f"rows that are left out, {reasons}: {count}"] if count else []
    counts = np.count_nonzero(comments.codes == UNLABELLED, axis=0).tolist()
    labels = [f"{label} ({n})" for label, n in zip(comments.labels, counts, strict=True) if n]
    if labels:
        notes.append(f"rows without a label, left out of its loss and scores: {list_items(labels)}")
    return notes


def doubtful_label_notes(comments: TextDataset) -> list[str]:
    """Return a line with the labels that may be other facts; an empty list if there are none."""
    if not comments.doubtful_labels:
        return []
    names = ", ".join(map(safe_quote, comments.doubtful_labels))
    others = [label for label in comments.labels if label not in comments.doubtful_labels]
    advice = f": --labels {join_names(others)}" if printable_names(others) == others else ""
    return [
        f"perhaps not a label but another fact with values of 0 and 1: {names}; to leave it out, "
        f"name the labels{advice}"
    ]


def ignored_column_notes(comments: TextDataset) -> list[str]:
    """Return a line with the names of the unused columns; an empty list if there are none."""
    names = ", ".join(map(safe_quote, comments.ignored_columns))
    return [f"columns that are not used: {names}"] if names else []


def _id_problems(column: "pd.Series[Any]", texts: "pd.Series[Any]", source: str) -> Iterator[str]:
    name = str(column.name)
    blank = is_blank(column)
    for row in column.index[blank]:
        yield f"{source}: row {row + 1}, column {name!r}: the id is blank; give the row one"
    repeated = column.index[column.duplicated().to_numpy(dtype=bool) & ~blank]
    first_rows = {row: (column == column[row]).idxmax() for row in repeated[:MAX_PROBLEMS]}
    if any(texts[row] == texts[first] for row, first in first_rows.items()):
        yield (
            f"{source}: column {name!r}: {len(repeated)} rows repeat an id, some with its text; if "
            "several raters labelled a comment, write one row for each comment (such as the share "
            "of the raters, with --positive-from 0.5), or keep all rows of a comment in one part: "
            f"--id-column none --group-column {safe_quote(name)} --split grouped"
        )
    for row, first in first_rows.items():
        yield (
            f"{source}: row {row + 1}, column {name!r}: the same id as in row {first + 1}; "
            "remove one, or name another column with --id-column, or none"
        )


def _label_codes(frame: "pd.DataFrame", meaning: LabelValues) -> Codes:
    """Return the code of each value, `INVALID` included, uint8 ``[row, label]``."""
    codes = np.empty(frame.shape, dtype=np.uint8)
    for i, label in enumerate(frame.columns):
        numbers, values = factorize(frame[label])
        codes[:, i] = np.array([meaning.code(value) for value in values])[numbers]
    return codes


def _label_problems(
    labels: Labels, codes: Codes, source: str, meaning: LabelValues
) -> Iterator[str]:
    """Yield a problem for each value that is not a label; the index counts rows from 0."""
    for i, label in enumerate(labels.frame.columns):
        column = labels.frame[label]
        name = repr(label)
        if labels.set_column is not None:
            name = f"{labels.set_column!r}, label {label!r}"
        valid_share = float(np.mean(codes[:, i] != INVALID))
        for row in np.flatnonzero(codes[:, i] == INVALID).tolist():
            value = column.iloc[row]
            problem = meaning.problem(value if isinstance(value, str) else "", valid_share)
            yield f"{source}: row {column.index[row] + 1}, column {name}: {problem}"


def _ids(frame: "pd.DataFrame", row_id: str | None) -> TextArray[str]:
    """Return the ids, or row numbers counted from 1 without an id column."""
    if row_id is None:
        return TextArray.from_texts(str(row + 1) for row in frame.index)
    return TextArray.from_column(frame[row_id].astype("str"))


def _groups(frame: "pd.DataFrame", group: str | None) -> TextArray[str | None] | None:
    """Return the group of each row, None for blank cells; None without a group column."""
    if group is None:
        return None
    codes, values = factorize(frame[group])
    is_none = np.array([not value.strip() for value in values])
    return TextArray.from_column(frame[group].astype("str").mask(is_none[codes]))
