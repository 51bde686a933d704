"""Finding of the columns: text, id, group, and labels in columns of 0 and 1 or in one of sets."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from toxbench.data.label_values import (
    LabelValues,
    has_literals,
    has_shares,
    looks_like_label,
    read_label_sets,
    separators,
)
from toxbench.data.readers.formats import CLASS_NAMES
from toxbench.data.readers.input_file import format_columns, printable_names
from toxbench.errors import DataError, did_you_mean
from toxbench.settings import NO_COLUMN, ColumnSettings
from toxbench.util.text import list_items, safe_quote

if TYPE_CHECKING:
    import pandas as pd

# Names of columns in order of preference, in lower case and without punctuation.
_TEXT_NAMES = (
    "text", "comment", "commenttext", "content", "body", "message", "tweet", "post",
    "sentence", "review", "document",
)  # fmt: skip
_ID_NAMES = ("commentid", "id", "textid", "rowid", "postid", "tweetid", "messageid", "uid")
_GROUP_NAMES = ("videoid", "group", "groupid", "threadid", "video", "thread")
_SET_NAMES = {
    "labels", "label", "tags", "tag", "categories", "category", "cats", "genres", "genre", "topics",
    "classes", "emotions",
}  # fmt: skip
# Names of facts about a comment that are often 0 or 1 but are not to be learnt.
_FACT = re.compile(
    r"(?i:is|has|was)[_ -].*|(is|has|was|Is|Has|Was)[A-Z].*"
    r"|(?i:retweet|reply|verified|deleted|edited|url|link|image|quote|pinned|sponsored)"
)


@dataclass(frozen=True)
class Labels:
    """The labels of a table, before their values are checked.

    Attributes:
        frame: values of each label as text, ``[row, label]``.
        set_column: the column of label sets; None for columns of 0 and 1.
        notes: how they were found, one line each.
        doubtful: labels that may be other facts.
    """

    frame: "pd.DataFrame"
    set_column: str | None = None
    notes: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The columns of the table that hold labels."""
        return list(self.frame.columns) if self.set_column is None else [self.set_column]

    @property
    def role(self) -> dict[str, str | None]:
        """The column of label sets as a role of the table; empty for columns of 0 and 1."""
        return {} if self.set_column is None else {"labels": self.set_column}


def find_columns(
    frame: "pd.DataFrame", source: str, columns: ColumnSettings
) -> tuple[str, str | None, str | None]:
    """Return the text, id and group columns; the last two are None if they are missing.

    Raises:
        DataError: a column that the user named is missing, or no text column was found.
    """
    named = {*columns.labels, columns.labels_column, columns.group_column}
    free = [column for column in frame.columns if column not in named]
    text = check_column(frame, source, columns.text_column) or _preferred(free, _TEXT_NAMES)
    if text is None:
        taken = _preferred([column for column in frame.columns if column in named], _TEXT_NAMES)
        role = f" ({safe_quote(taken)} has another role)" if taken else ""
        raise DataError(
            f"{source}: found no text column among {format_columns(frame.columns)}{role}; name it "
            "with --text-column, or check the delimiter"
        )
    row_id = None
    if columns.id_column != NO_COLUMN:
        row_id = check_column(frame, source, columns.id_column) or _preferred(free, _ID_NAMES)
    group = check_column(frame, source, columns.group_column) or _preferred(free, _GROUP_NAMES)
    return text, row_id, group


def check_column(frame: "pd.DataFrame", source: str, name: str | None) -> str | None:
    """Return a column name that the user gave; raises `DataError` if the table lacks it."""
    if name is not None and name not in frame.columns:
        near = did_you_mean(name, printable_names(frame.columns))
        raise DataError(
            f"{source}: no column is called {safe_quote(name)}{near}; found "
            f"{format_columns(frame.columns)}"
        )
    return name


def find_labels(
    frame: "pd.DataFrame", source: str, columns: ColumnSettings, used: Collection[str | None]
) -> Labels:
    """Return the labels that the user named, or those that are found in the other columns.

    Raises:
        DataError: a named column is missing or has another role, no labels are found, or it is
            not clear which columns hold them.
    """
    named = columns.labels if columns.labels_column is None else (columns.labels_column,)
    for name in named:
        check_column(frame, source, name)
        if name in used:
            raise DataError(f"{source}: column {name!r} was named for two roles; name another")
    if columns.labels_column is not None:
        return _label_sets(frame, source, columns.labels_column, columns)
    if columns.labels:
        return Labels(frame[list(dict.fromkeys(columns.labels))])
    return _detect_labels(
        frame, source, columns, [column for column in frame.columns if column not in used]
    )


def _detect_labels(
    frame: "pd.DataFrame", source: str, columns: ColumnSettings, free: Sequence[str]
) -> Labels:
    meaning = LabelValues.of(columns)
    labels = [column for column in free if looks_like_label(frame[column], meaning)]
    sets = _set_columns(frame, [column for column in free if column not in labels], bool(labels))
    if len(sets) > 1 or (sets and labels):
        raise DataError(
            f"{source}: labels may be in {format_columns([*labels, *sets])}; name one column of "
            "label sets with --labels-column, or columns of 0 and 1 with --labels"
        )
    if sets:
        return _label_sets(frame, source, sets[0], columns)
    if not labels:
        raise DataError(_no_labels_message(frame, source, free))
    return Labels(frame[labels], doubtful=tuple(_doubtful(labels, frame.columns)))


def _set_columns(frame: "pd.DataFrame", free: Sequence[str], only_by_name: bool) -> list[str]:
    """Return the columns that are likely to hold label sets, best ones by name and values."""
    named = [column for column in free if _plain_name(column) in _SET_NAMES]
    best = [column for column in named if has_literals(frame[column])]
    if best or only_by_name:
        return best
    literal = [column for column in free if has_literals(frame[column])]
    return literal or [column for column in named if len(separators(frame[column])) == 1]


def _label_sets(frame: "pd.DataFrame", source: str, name: str, columns: ColumnSettings) -> Labels:
    names = columns.label_names or frame.attrs.get(CLASS_NAMES, {}).get(name, ())
    values, notation = read_label_sets(
        frame[name], source, columns.labels_separator, names, LabelValues.of(columns)
    )
    notes = [f"labels are those in column {safe_quote(name)}: {notation}"]
    if columns.labels:
        unused = [safe_quote(label) for label in values.columns if label not in columns.labels]
        if unused:
            notes.append(f"labels that are not used: {list_items(unused)}")
        values = values.reindex(columns=list(dict.fromkeys(columns.labels)), fill_value="0")
    return Labels(values, name, tuple(notes))


def _no_labels_message(frame: "pd.DataFrame", source: str, free: Sequence[str]) -> str:
    shares = [column for column in free if has_shares(frame[column])]
    hint = f"; shares as in {format_columns(shares)} need --positive-from 0.5" if shares else ""
    return (
        f"{source}: found no label column (values 0/1 or true/false) among "
        f"{format_columns(frame.columns)}; name them with --labels, map their values with "
        "--true-values and --false-values, name one column of label sets with --labels-column, or "
        f"check the delimiter{hint}"
    )


def _doubtful(labels: Sequence[str], columns: Iterable[str]) -> list[str]:
    """Return labels named like a fact, where most are not, or apart from most of the others."""
    facts = [label for label in labels if _FACT.fullmatch(label)]
    runs = [list(run) for is_label, run in groupby(columns, labels.__contains__) if is_label]
    largest = max(runs, key=len)
    apart = [label for label in labels if label not in largest and len(largest) > 1]
    return [
        label
        for label in labels
        if label in apart or (label in facts and 2 * len(facts) <= len(labels))
    ]


def _preferred(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the column whose name comes first in ``names``; case and punctuation are ignored."""
    by_plain_name = {_plain_name(column): column for column in reversed(columns)}
    return next((by_plain_name[name] for name in names if name in by_plain_name), None)


def _plain_name(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())
