"""The validated table of comments: reading, finding of columns, and checks of every cell."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toxbench.data.readers import (
    MAX_PROBLEMS,
    format_columns,
    printable_names,
    read_strings,
)
from toxbench.data.text_array import TextArray, take_rows
from toxbench.errors import DataError, did_you_mean
from toxbench.settings import FALSE_WORDS, TRUE_WORDS, ColumnSettings, normalize_word
from toxbench.util.arrays import Targets
from toxbench.util.text import safe_quote

if TYPE_CHECKING:
    import pandas as pd


# Value -> its likely meaning. Such a column is a label column, but its values must be corrected.
_LIKELY_LABELS: Mapping[str, str] = {
    "yes": "1", "no": "0", "y": "1", "n": "0", "t": "1", "f": "0", "on": "1", "off": "0",
    "1.0": "1", "0.0": "0", "+1": "1", "-1": "0", "none": "0", "nan": "0", "na": "0",
}  # fmt: skip
_INVALID = 2  # code of a value that is not a label
# Names of columns in order of preference, in lower case and without punctuation.
_TEXT_NAMES = (
    "text", "comment", "commenttext", "content", "body", "message", "tweet", "post",
    "sentence", "review", "document",
)  # fmt: skip
_ID_NAMES = ("commentid", "id", "textid", "rowid", "postid", "tweetid", "messageid", "uid")
_GROUP_NAMES = ("videoid", "group", "groupid", "threadid", "video", "thread")


@dataclass(frozen=True, eq=False, repr=False)
class TextDataset:
    """A table that passed every check.

    Attributes:
        name: file name without folder, or "synthetic sample".
        ids: unique ids, ``[row]``.
        texts: non-empty texts, ``[row]``.
        targets: 0/1, read-only uint8 ``[row, label]``.
        labels: names of the columns of ``targets``.
        groups: group of each row or None, ``[row]``; None if the table has no group column.
        ignored_columns: columns of the file that are not used.
        columns: role ("text", "id", "group") -> column name, found or named by the user.
        dropped_rows: numbers of the rows of the file without a text, counted from 1.
    """

    name: str
    ids: Sequence[str]
    texts: Sequence[str]
    targets: Targets
    labels: tuple[str, ...]
    groups: Sequence[str | None] | None
    ignored_columns: tuple[str, ...]
    columns: dict[str, str | None]
    dropped_rows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.targets.setflags(write=False)  # targets must stay as they were read

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()  # copying and pickling make the array writable again

    def __len__(self) -> int:
        return len(self.ids)

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
            targets=self.targets[rows],
            groups=None if self.groups is None else take_rows(self.groups, rows),
            dropped_rows=(),
        )


def read_comments(path: Path | str, columns: ColumnSettings | None = None) -> TextDataset:
    """Read and validate a table of comments.

    Text, id, group and label columns are found by their names and values unless ``columns``
    names them. Labels are ``0``, ``1``, ``true`` and ``false`` in any case, and the values that
    ``columns`` maps to them.

    Args:
        path: CSV, TSV, Parquet or JSON lines.
        columns: roles of the columns and the meaning of their values.

    Raises:
        DataError: with up to ten problems, each with the file, the row (counted from 1, without
            the header), the column and how to correct it.
    """
    path = Path(path)
    columns = columns or ColumnSettings()
    frame = read_strings(path, columns.encoding)
    return comments_from_frame(frame, path.name, str(path), columns)


def comments_from_frame(
    frame: "pd.DataFrame", name: str, source: str, columns: ColumnSettings
) -> TextDataset:
    """Validate a table as `read_strings` returns it; ``source`` is its path, for messages.

    Raises:
        DataError: as `read_comments`.
    """
    text, row_id, group = find_columns(frame, source, columns)
    is_dropped = is_blank(frame[text]) & columns.drop_empty
    dropped_rows = tuple((np.flatnonzero(is_dropped) + 1).tolist())
    if dropped_rows:
        frame = frame[~is_dropped]  # the index still counts the rows of the file
    if frame.empty:
        raise DataError(f"{source}: no row has a text in column {text!r}; check --text-column")
    labels = _label_columns(frame, source, columns, {text, row_id, group})
    targets = np.zeros((len(frame), len(labels)), dtype=np.uint8)
    all_problems = chain(
        empty_text_problems(frame[text], source, text),
        _id_problems(frame[row_id], source, row_id) if row_id is not None else (),
        *(
            _parse_label(frame[label], source, label, label_values(columns), targets[:, i])
            for i, label in enumerate(labels)
        ),
    )
    problems = list(islice(all_problems, MAX_PROBLEMS))
    if problems:
        raise DataError(problems)
    if not targets.any():
        raise DataError(
            f"{source}: no label has a positive row; there is nothing to learn or score"
        )
    used = {text, row_id, group, *labels}
    return TextDataset(
        name=name,
        ids=_ids(frame, row_id),
        texts=TextArray.from_column(frame[text].astype("str")),
        targets=targets,
        labels=tuple(labels),
        groups=_groups(frame, group),
        ignored_columns=tuple(column for column in frame.columns if column not in used),
        columns={"text": text, "id": row_id, "group": group},
        dropped_rows=dropped_rows,
    )


def find_columns(
    frame: "pd.DataFrame", source: str, columns: ColumnSettings
) -> tuple[str, str | None, str | None]:
    """Return the text, id and group columns; the last two are None if they are missing.

    Raises:
        DataError: a column that the user named is missing, or no text column was found.
    """
    free = [column for column in frame.columns if column not in columns.labels]
    text = _check_column(frame, source, columns.text_column) or _preferred(free, _TEXT_NAMES)
    if text is None:
        raise DataError(
            f"{source}: found no text column among {format_columns(frame.columns)}; name it with "
            "--text-column, or check the delimiter"
        )
    row_id = _check_column(frame, source, columns.id_column) or _preferred(free, _ID_NAMES)
    group = _check_column(frame, source, columns.group_column) or _preferred(free, _GROUP_NAMES)
    return text, row_id, group


def label_values(columns: ColumnSettings) -> dict[str, int]:
    """Return the valid values of a label column, in the form of `normalize_word` -> 0 or 1."""
    positives = {*TRUE_WORDS, *map(normalize_word, columns.true_values)}
    negatives = {*FALSE_WORDS, *map(normalize_word, columns.false_values)}
    return dict.fromkeys(positives, 1) | dict.fromkeys(negatives, 0)


def looks_like_label(column: "pd.Series[Any]", columns: ColumnSettings) -> bool:
    """Return whether at least half of the non-blank cells are labels or likely labels."""
    codes, values = _factorize(column)
    words = [normalize_word(value) for value in values]
    valid_words = {*label_values(columns), *_LIKELY_LABELS}
    is_filled = np.array([word != "" for word in words])
    is_valid = is_filled & np.array([word in valid_words for word in words])
    count = np.count_nonzero(is_filled[codes])
    return bool(count > 0 and np.count_nonzero(is_valid[codes]) / count >= 0.5)


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


def dropped_row_notes(comments: TextDataset) -> list[str]:
    """Return a line with the number of dropped rows; an empty list if there are none."""
    count = len(comments.dropped_rows)
    return [f"rows without a text that are left out (--drop-empty): {count}"] if count else []


def ignored_column_notes(comments: TextDataset) -> list[str]:
    """Return a line with the names of the unused columns; an empty list if there are none."""
    names = ", ".join(map(safe_quote, comments.ignored_columns))
    return [f"columns that are not used: {names}"] if names else []


def _check_column(frame: "pd.DataFrame", source: str, name: str | None) -> str | None:
    """Return a column name that the user gave; raises `DataError` if the table lacks it."""
    if name is not None and name not in frame.columns:
        near = did_you_mean(name, printable_names(frame.columns))
        raise DataError(
            f"{source}: no column is called {safe_quote(name)}{near}; found "
            f"{format_columns(frame.columns)}"
        )
    return name


def _preferred(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the column whose name comes first in ``names``; case and punctuation are ignored."""
    by_plain_name = {_plain_name(column): column for column in reversed(columns)}
    return next((by_plain_name[name] for name in names if name in by_plain_name), None)


def _plain_name(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _label_columns(
    frame: "pd.DataFrame", source: str, columns: ColumnSettings, used: set[str | None]
) -> list[str]:
    """Return the label columns that the user named, or all that look like labels."""
    if columns.labels:
        for name in columns.labels:
            _check_column(frame, source, name)
        clash = next((name for name in columns.labels if name in used), None)
        if clash is not None:
            raise DataError(f"{source}: column {clash!r} was named for two roles; name another")
        return list(dict.fromkeys(columns.labels))
    free = [column for column in frame.columns if column not in used]
    labels = [column for column in free if looks_like_label(frame[column], columns)]
    if not labels:
        raise DataError(
            f"{source}: found no label column (values 0/1 or true/false) among "
            f"{format_columns(frame.columns)}; name them with --labels, map their values with "
            "--true-values and --false-values, or check the delimiter"
        )
    return labels


def _factorize(column: "pd.Series[Any]") -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return each row's index into a list of distinct values; null is -1, the last value, ""."""
    import pandas as pd

    codes, values = pd.factorize(column)
    return codes, [*map(str, values), ""]


def _id_problems(column: "pd.Series[Any]", source: str, name: str) -> Iterator[str]:
    blank = is_blank(column)
    for row in column.index[blank]:
        yield f"{source}: row {row + 1}, column {name!r}: the id is blank; give the row one"
    is_repeated = column.duplicated().to_numpy(dtype=bool) & ~blank
    for row in column.index[is_repeated]:
        first = (column == column[row]).idxmax()
        yield (
            f"{source}: row {row + 1}, column {name!r}: the same id as in row {first + 1}; "
            "remove one, or name another column with --id-column"
        )


def _parse_label(
    column: "pd.Series[Any]", source: str, name: str, valid: Mapping[str, int], target: Targets
) -> Iterator[str]:
    """Write 0/1 into ``target`` (a view of one column); yield a problem for each other value."""
    codes, values = _factorize(column)
    parsed_values = [valid.get(normalize_word(value), _INVALID) for value in values]
    parsed = np.array(parsed_values, dtype=np.uint8)[codes]
    valid_share = float(np.mean(parsed != _INVALID))
    for row in np.flatnonzero(parsed == _INVALID).tolist():
        value = values[codes[row]]
        shown = safe_label(value, valid_share)
        problem = f"{shown} is not a label" if value.strip() else "the label is blank"
        location = f"{source}: row {column.index[row] + 1}, column {name!r}"
        yield f"{location}: {problem}; {_label_advice(value)}"
    target[:] = parsed


def safe_label(value: str, valid_share: float) -> str:
    """Quote an invalid value of a column of labels or parts for a message.

    In a column of which less than half is valid, it may be a comment of one word, and is quoted
    only if it is a number or a likely label.
    """
    word = normalize_word(value)
    is_number = word.lstrip("+-").replace(".", "", 1).isdigit()
    is_safe = valid_share >= 0.5 or is_number or word in _LIKELY_LABELS
    return safe_quote(value, "a text", characters=12 if is_safe else 0, words=1)


def _label_advice(value: str) -> str:
    word = normalize_word(value)
    if not word:
        return "write 0 or 1"
    likely = _LIKELY_LABELS.get(word)
    if likely is not None:
        option = "--true-values" if likely == "1" else "--false-values"
        return f"write {likely}, or map it with {option}"
    return (
        "write 0 or 1, map it with --true-values or --false-values, or name the label columns "
        "with --labels"
    )


def _ids(frame: "pd.DataFrame", row_id: str | None) -> TextArray[str]:
    """Return the ids, or row numbers counted from 1 without an id column."""
    if row_id is None:
        return TextArray.from_texts(str(row + 1) for row in frame.index)
    return TextArray.from_column(frame[row_id].astype("str"))


def _groups(frame: "pd.DataFrame", group: str | None) -> TextArray[str | None] | None:
    """Return the group of each row, None for blank cells; None without a group column."""
    if group is None:
        return None
    codes, values = _factorize(frame[group])
    is_none = np.array([not value.strip() for value in values])
    return TextArray.from_column(frame[group].astype("str").mask(is_none[codes]))
