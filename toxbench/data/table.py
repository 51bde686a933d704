"""The validated table: what every later stage may rely on."""

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
    names_to_show,
    read_strings,
    safe_value,
)
from toxbench.data.text_array import TextArray, take_rows
from toxbench.errors import DataError, did_you_mean
from toxbench.settings import FALSE_WORDS, TRUE_WORDS, ColumnSettings, normalize_word
from toxbench.util.arrays import Targets

if TYPE_CHECKING:
    import pandas as pd


# Values that show that a column was meant as a label, though it must be mended first.
_MEANT: Mapping[str, str] = {
    "yes": "1", "no": "0", "y": "1", "n": "0", "t": "1", "f": "0", "on": "1", "off": "0",
    "1.0": "1", "0.0": "0", "+1": "1", "-1": "0", "none": "0", "nan": "0", "na": "0",
}  # fmt: skip
_TEXT_NAMES = (
    "text", "comment", "commenttext", "content", "body", "message", "tweet", "post",
    "sentence", "review", "document",
)  # fmt: skip
_ID_NAMES = ("commentid", "id", "textid", "rowid", "postid", "tweetid", "messageid", "uid")
_GROUP_NAMES = ("videoid", "group", "groupid", "threadid", "video", "thread")


@dataclass(frozen=True, eq=False)
class TextDataset:
    """A table that passed every check.

    Attributes:
        name: file name without folder, or "synthetic sample".
        ids: unique, one for each row.
        texts: never empty.
        targets: 0/1, shape ``[row, label]``.
        labels: names of the columns of ``targets``.
        groups: one for each row, None where a row belongs to none; None without such a column.
        ignored: columns of the file that are not used.
        columns: role -> column name, as found or given.
        dropped: rows of the file that have no text and were left out, counted from 1.
    """

    name: str
    ids: Sequence[str]
    texts: Sequence[str]
    targets: Targets
    labels: tuple[str, ...]
    groups: Sequence[str | None] | None
    ignored: tuple[str, ...]
    columns: dict[str, str | None]
    dropped: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.targets.setflags(write=False)  # what is scored is what was read

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()  # the array of a copy, or of another process, could be written again

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def supports(self) -> dict[str, int]:
        """Positive rows of each label."""
        counts = self.targets.sum(axis=0, dtype=np.int64)
        return dict(zip(self.labels, counts.tolist(), strict=True))

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """The number of each row in its file, counted from 1."""
        every = np.arange(1, len(self) + len(self.dropped) + 1, dtype=np.int64)
        return np.setdiff1d(every, self.dropped, assume_unique=True)

    def take(self, rows: npt.NDArray[np.int64]) -> "TextDataset":
        """Return a table of some rows, in the order of ``rows``; it holds nothing of the others."""
        return replace(
            self,
            ids=take_rows(self.ids, rows),
            texts=take_rows(self.texts, rows),
            targets=self.targets[rows],
            groups=None if self.groups is None else take_rows(self.groups, rows),
            dropped=(),
        )


def read_comments(path: Path | str, columns: ColumnSettings | None = None) -> TextDataset:
    """Read and validate a table of comments.

    Text, id, group and label columns are found by their names and values unless ``columns``
    names them. ``0``, ``1``, ``true`` and ``false`` in any case are labels, and nothing else is
    but what ``columns`` maps.

    Raises:
        DataError: with up to ten problems, each naming file, row (counted from 1, without the
            header), column and the nearest fix.
    """
    path = Path(path)
    columns = columns or ColumnSettings()
    frame = read_strings(path, columns.encoding)
    return comments_from_frame(frame, path.name, str(path), columns)


def left_out(comments: TextDataset) -> list[str]:
    """Say in one line how many rows of the file have no text; nothing where all have one."""
    count = len(comments.dropped)
    return [f"rows without a text that are left out (--drop-empty): {count}"] if count else []


def comments_from_frame(
    frame: "pd.DataFrame", name: str, where: str, columns: ColumnSettings
) -> TextDataset:
    """Validate a table of strings; ``where`` is how messages call it.

    Raises:
        DataError: as `read_comments`.
    """
    text, row_id, group = find_roles(frame, where, columns)
    empty = is_blank(frame[text]) & columns.drop_empty
    dropped = tuple((np.flatnonzero(empty) + 1).tolist())
    if dropped:
        frame = frame[~empty]  # its index goes on counting the rows of the file
    if frame.empty:
        raise DataError(f"{where}: no row has a text in column {text!r}; check --text-column")
    labels = _label_columns(frame, where, columns, {text, row_id, group})
    targets = np.zeros((len(frame), len(labels)), dtype=np.uint8)
    found = chain(
        bad_texts(frame[text], where, text),
        _bad_ids(frame[row_id], where, row_id) if row_id is not None else (),
        *(
            _parse_label(frame[label], where, label, word_meanings(columns), targets[:, i])
            for i, label in enumerate(labels)
        ),
    )
    problems = list(islice(found, MAX_PROBLEMS))
    if problems:
        raise DataError(problems)
    if not targets.any():
        raise DataError(f"{where}: no label has a positive row; there is nothing to learn or score")
    used = {text, row_id, group, *labels}
    return TextDataset(
        name=name,
        ids=_ids(frame, row_id),
        texts=TextArray.of_column(frame[text].astype("str")),
        targets=targets,
        labels=tuple(labels),
        groups=_groups(frame, group),
        ignored=tuple(c for c in frame.columns if c not in used),
        columns={"text": text, "id": row_id, "group": group},
        dropped=dropped,
    )


def word_meanings(columns: ColumnSettings) -> dict[str, int]:
    """Return what each word means in a label column; a word that is not there means nothing."""
    yes = {*TRUE_WORDS, *map(normalize_word, columns.true_values)}
    no = {*FALSE_WORDS, *map(normalize_word, columns.false_values)}
    return dict.fromkeys(yes, 1) | dict.fromkeys(no, 0)


def find_roles(
    frame: "pd.DataFrame", where: str, columns: ColumnSettings
) -> tuple[str, str | None, str | None]:
    """Return the columns of texts, ids and groups; only the first has to be there.

    Raises:
        DataError: no column is called as one that is named, or none is of texts.
    """
    free = [column for column in frame.columns if column not in columns.labels]
    text = _named(frame, where, columns.text_column) or _found(free, _TEXT_NAMES)
    if text is None:
        raise DataError(
            f"{where}: found no text column among {format_columns(frame.columns)}; name it with "
            "--text-column, or check the delimiter"
        )
    row_id = _named(frame, where, columns.id_column) or _found(free, _ID_NAMES)
    group = _named(frame, where, columns.group_column) or _found(free, _GROUP_NAMES)
    return text, row_id, group


def _named(frame: "pd.DataFrame", where: str, name: str | None) -> str | None:
    if name is not None and name not in frame.columns:
        near = did_you_mean(name, names_to_show(frame.columns))
        raise DataError(
            f"{where}: no column is called {name!r}{near}; found {format_columns(frame.columns)}"
        )
    return name


def _found(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the column whose name is first in ``names``, whatever its case and punctuation."""
    plain = {_plain(column): column for column in reversed(columns)}
    return next((plain[name] for name in names if name in plain), None)


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def _label_columns(
    frame: "pd.DataFrame", where: str, columns: ColumnSettings, take_rows: set[str | None]
) -> list[str]:
    if columns.labels:
        for name in columns.labels:
            _named(frame, where, name)
        clash = next((name for name in columns.labels if name in take_rows), None)
        if clash is not None:
            raise DataError(f"{where}: column {clash!r} was named for two roles; name another")
        return list(dict.fromkeys(columns.labels))
    free = [c for c in frame.columns if c not in take_rows]
    labels = [c for c in free if looks_like_label(frame[c], columns)]
    if not labels:
        raise DataError(
            f"{where}: found no label column (values 0/1 or true/false) among "
            f"{format_columns(frame.columns)}; name them with --labels, map their values with "
            "--true-values and --false-values, or check the delimiter"
        )
    return labels


def looks_like_label(column: "pd.Series[Any]", columns: ColumnSettings) -> bool:
    """At least half of what is written there is a label, or was clearly meant as one."""
    codes, words = _distinct(column)
    known = {*word_meanings(columns), *_MEANT}
    written = np.array([word != "" for word in map(normalize_word, words)])
    is_known = written & np.array([normalize_word(word) in known for word in words])
    count = np.count_nonzero(written[codes])
    return bool(count > 0 and np.count_nonzero(is_known[codes]) / count >= 0.5)


def _distinct(column: "pd.Series[Any]") -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return what each row says as a place in a list of different words; null is the last, ""."""
    import pandas as pd

    codes, words = pd.factorize(column)
    return codes, [*map(str, words), ""]  # the code of null is -1


def bad_texts(column: "pd.Series[Any]", where: str, name: str) -> Iterator[str]:
    """Yield a line for each row without a text; the index of the column counts rows from 0."""
    for row in column.index[is_blank(column)]:
        yield (
            f"{where}: row {row + 1}, column {name!r}: the text is empty; remove the row, or all "
            "such rows with --drop-empty"
        )


def _bad_ids(column: "pd.Series[Any]", where: str, name: str) -> Iterator[str]:
    blank = is_blank(column)
    for row in column.index[blank]:
        yield f"{where}: row {row + 1}, column {name!r}: the id is blank; give the row one"
    again = column.duplicated().to_numpy(dtype=bool) & ~blank
    for row in column.index[again]:
        first = (column == column[row]).idxmax()
        yield (
            f"{where}: row {row + 1}, column {name!r}: the same id as in row {first + 1}; "
            "remove one, or name another column with --id-column"
        )


def is_blank(column: "pd.Series[Any]") -> npt.NDArray[np.bool_]:
    """Return which rows are null or white space."""
    return column.astype("str").fillna("").str.strip().eq("").to_numpy(dtype=bool)


def _parse_label(
    column: "pd.Series[Any]", where: str, name: str, meanings: Mapping[str, int], target: Targets
) -> Iterator[str]:
    """Write 0/1 into ``target`` (a view of one column); yield the values that are neither."""
    codes, values = _distinct(column)
    # One entry for each distinct value: 0, 1, or 2 for "not a label".
    parsed = np.array([meanings.get(normalize_word(v), 2) for v in values], dtype=np.uint8)[codes]
    for row in np.flatnonzero(parsed == 2).tolist():
        value = values[codes[row]]
        problem = f"{safe_value(value)} is not a label" if value.strip() else "the label is blank"
        yield f"{where}: row {column.index[row] + 1}, column {name!r}: {problem}; {_fix(value)}"
    target[:] = parsed


def _fix(value: str) -> str:
    plain = normalize_word(value)
    if not plain:
        return "write 0 or 1"
    meant = _MEANT.get(plain)
    if meant is not None:
        option = "--true-values" if meant == "1" else "--false-values"
        return f"write {meant}, or map it with {option}"
    return (
        "write 0 or 1, map it with --true-values or --false-values, or name the label columns "
        "with --labels"
    )


def _ids(frame: "pd.DataFrame", row_id: str | None) -> TextArray[str]:
    if row_id is None:
        return TextArray.of(str(row + 1) for row in frame.index)
    return TextArray.of_column(frame[row_id].astype("str"))


def _groups(frame: "pd.DataFrame", group: str | None) -> TextArray[str | None] | None:
    if group is None:
        return None
    codes, values = _distinct(frame[group])
    is_none = np.array([not value.strip() for value in values])
    return TextArray.of_column(frame[group].astype("str").mask(is_none[codes]))
