"""The meaning of the values in a label column, and of a column of label sets."""

import ast
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toxbench.data.readers.input_file import check_width
from toxbench.errors import DataError
from toxbench.settings import BLANK, FALSE_WORDS, TRUE_WORDS, ColumnSettings, normalize_word
from toxbench.util.arrays import UNLABELLED
from toxbench.util.text import safe_quote

if TYPE_CHECKING:
    import pandas as pd

INVALID = 2  # code of a value without a meaning
# Value -> its likely meaning. Such a column is a label column, but its values must be corrected.
_LIKELY_LABELS: Mapping[str, str] = {
    "yes": "1", "no": "0", "y": "1", "n": "0", "t": "1", "f": "0", "on": "1", "off": "0", "+1": "1",
}  # fmt: skip
_LIKELY_UNLABELLED = frozenset({"", "-1", "none", "nan", "na", "n/a", "null", "<na>", "?"})
_NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?")
_SEPARATORS = ("|", ";", ",")
_TAGS = re.compile(r"\s*(<[^<>]+>\s*)+")
_TAG = re.compile(r"<([^<>]+)>")
_MISSING_COMMA = re.compile(r"(?<=['\"])\s+(?=['\"])")  # numpy prints lists without commas
_MAX_NAME, _MAX_WORDS = 40, 4  # a longer name may be a comment

Items = list[Any] | dict[str, Any]  # names of labels, or values by name
Values = dict[str, str]  # label -> value as text


@dataclass(frozen=True)
class LabelValues:
    """The meaning of the values in label columns, as the user set it.

    Attributes:
        words: value in the form of `normalize_word` -> 0 or 1.
        unlabelled: values that mean "not labelled".
        positive_from: smallest number that means 1; None: numbers have no such meaning.
        highest: largest number that ``positive_from`` applies to.
    """

    words: Mapping[str, int]
    unlabelled: frozenset[str]
    positive_from: float | None
    highest: float

    @classmethod
    def of(cls, columns: ColumnSettings) -> "LabelValues":
        """Return the meaning that the settings define; counts are labels in named columns only."""
        positives = {*TRUE_WORDS, *map(normalize_word, columns.true_values)}
        negatives = {*FALSE_WORDS, *map(normalize_word, columns.false_values)}
        return cls(
            words=dict.fromkeys(positives, 1) | dict.fromkeys(negatives, 0),
            unlabelled=frozenset(map(normalize_word, columns.unlabelled)),
            positive_from=columns.positive_from,
            highest=float("inf") if columns.labels or columns.labels_column else 1.0,
        )

    def code(self, value: str) -> int:
        """Return 0, 1, `UNLABELLED` or `INVALID`."""
        word = normalize_word(value)
        if (word or BLANK) in self.unlabelled:
            return UNLABELLED
        number = float(word) if _NUMBER.fullmatch(word) else None
        if number is None or self.positive_from is None or number > self.highest:
            return self.words.get(word, INVALID)
        return int(number >= self.positive_from)

    def problem(self, value: str, valid_share: float) -> str:
        """Return why a value is not a label, and how to correct it; as `safe_label`."""
        word, shown = normalize_word(value), safe_label(value, valid_share)
        problem = f"{shown} is not a label" if word else "the label is blank"
        return f"{problem}; {_advice(word)}"


def looks_like_label(column: "pd.Series[Any]", meaning: LabelValues) -> bool:
    """Return whether at least half of the cells are labels or likely labels.

    Cells that are blank or may mean "not labelled" are not counted.
    """
    codes, values = factorize(column)
    words = [normalize_word(value) for value in values]
    is_label = np.array([meaning.code(w) < INVALID or w in _LIKELY_LABELS for w in words])
    is_counted = np.array([w not in _LIKELY_UNLABELLED | meaning.unlabelled for w in words])
    count = np.count_nonzero(is_counted[codes])
    return bool(count > 0 and np.count_nonzero((is_counted & is_label)[codes]) / count >= 0.5)


def has_shares(column: "pd.Series[Any]") -> bool:
    """Return whether all values are numbers from 0 to 1, and some are between them."""
    words = {normalize_word(value) for value in factorize(column)[1]} - _LIKELY_UNLABELLED
    return not words <= {"0", "1"} and all(w in {"0", "1"} or _is_share(w) for w in words)


def safe_label(value: str, valid_share: float) -> str:
    """Quote an invalid value of a column of labels or parts for a message.

    In a column of which less than half is valid, it may be a comment of one word, and is quoted
    only if it is a number or a likely label.
    """
    word = normalize_word(value)
    is_likely = word in _LIKELY_LABELS or word in _LIKELY_UNLABELLED
    is_safe = valid_share >= 0.5 or is_likely or _NUMBER.fullmatch(word.lstrip("+-")) is not None
    return safe_quote(value, "a text", characters=12 if is_safe else 0, words=1)


def factorize(column: "pd.Series[Any]") -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return each row's index into a list of distinct values; null is -1, the last value, ""."""
    import pandas as pd

    codes, values = pd.factorize(column)
    return codes, [*map(str, values), ""]


def _is_share(word: str) -> bool:
    return _NUMBER.fullmatch(word) is not None and 0 < float(word) < 1


def _advice(word: str) -> str:
    if word in _LIKELY_UNLABELLED:
        return (
            f"write 0 or 1, or, where it means not labelled, leave out these labels with "
            f"--unlabelled={word or BLANK}, and their rows with --drop-unlabelled as well"
        )
    likely = _LIKELY_LABELS.get(word)
    if likely is not None:
        option = "--true-values" if likely == "1" else "--false-values"
        return f"write {likely}, or map it with {option}"
    if _is_share(word):
        return "write 0 or 1, or name the smallest number that means 1: --positive-from 0.5"
    return (
        "write 0 or 1, map it with --true-values or --false-values, or name the label columns "
        "with --labels (for counts also --positive-from)"
    )


def read_label_sets(
    column: "pd.Series[Any]",
    source: str,
    separator: str | None,
    names: Sequence[str],
    meaning: LabelValues,
) -> tuple["pd.DataFrame", str]:
    """Convert a column of label sets to a column for each label.

    A label that a set lacks is 0; it is blank if objects hold values of 0 for other labels.

    Args:
        column: cells as text; the index counts rows from 0.
        source: the table, for messages.
        separator: between names; None: found in the cells.
        names: of the labels that are integers, from 0.
        meaning: of the values in objects, and of cells that are not labelled.

    Returns:
        values of each label, ``[row, label]``, as those of label columns; and the notation.

    Raises:
        DataError: cells that are not label sets, several possible separators, integers without
            names, or too many labels.
    """
    location = f"{source}: column {str(column.name)!r}"
    codes, cells = factorize(column)
    texts = [cell if meaning.code(cell) != UNLABELLED else "" for cell in cells]
    parse, notation = _find_parser(texts, location, separator)
    sets = _name_values([parse(text) if text.strip() else [] for text in texts], location, names)
    values: list[Values] = []
    for number, items in enumerate(sets):
        try:
            values.append(dict(_label_values(items, names)))
        except ValueError as error:
            row = column.index[int((codes % len(cells) == number).argmax())] + 1
            raise DataError(f"{source}: row {row}, column {str(column.name)!r}: {error}") from None
    labels = list(dict.fromkeys([*names, *chain.from_iterable(values)]))
    check_width(location, len(labels))
    if separator is None and not names and len(labels) > max(10, len(codes) // 2):
        raise DataError(
            f"{location}: {len(labels)} different labels in {len(codes)} rows, as in a column of "
            "texts; name another column with --labels-column, or --labels-separator"
        )
    absent = "" if any(meaning.code(v) == 0 for value in values for v in value.values()) else "0"
    blank = "" if parse is _parse_literal else absent  # a list can be empty without being blank
    defaults = [
        cell if meaning.code(cell) == UNLABELLED else absent if cell.strip() else blank
        for cell in cells
    ]
    return _label_columns(values, defaults, labels, codes, column.index), notation


def _label_columns(
    values: Sequence[Values], defaults: Sequence[str], labels: Sequence[str], codes: Any, index: Any
) -> "pd.DataFrame":
    """Return a column for each label out of the values in each distinct cell."""
    import pandas as pd

    pairs = list(zip(values, defaults, strict=True))
    columns = {
        label: pd.Categorical([value.get(label, default) for value, default in pairs])[codes]
        for label in labels
    }
    return pd.DataFrame(columns, index=index)


def has_literals(column: "pd.Series[Any]") -> bool:
    """Return whether all cells that are not blank are lists, objects or names in brackets."""
    return _literal_parser(factorize(column)[1]) is not None


def separators(column: "pd.Series[Any]") -> list[str]:
    """Return the separators that occur in the cells."""
    cells = factorize(column)[1]
    return [mark for mark in _SEPARATORS if any(mark in cell for cell in cells)]


def _find_parser(
    cells: Sequence[str], location: str, separator: str | None
) -> tuple[Callable[[str], Items], str]:
    """Return the parser of one cell, and a description of the notation."""
    marks = [separator] if separator else [m for m in _SEPARATORS if any(m in c for c in cells)]
    literal = None if separator else _literal_parser(cells)
    if literal is not None:
        return literal
    if len(marks) > 1:
        raise DataError(
            f"{location}: several separators are possible: {' '.join(marks)}; name one with "
            "--labels-separator"
        )
    if not marks:
        return lambda cell: [cell], "one name in each cell"
    return lambda cell: list(cell.split(marks[0])), f"names with {marks[0]!r} between them"


def _literal_parser(cells: Sequence[str]) -> tuple[Callable[[str], Items], str] | None:
    filled = [cell for cell in cells if cell.strip()]
    if filled and all(map(_TAGS.fullmatch, filled)):
        return _TAG.findall, "names in angle brackets"
    for kind, notation in ((list, "lists"), (dict, "objects with a value for each label")):
        if filled and all(isinstance(_parse_literal(cell), kind) for cell in filled):
            return _parse_literal, notation
    return None


def _parse_literal(text: str) -> Any:
    """Parse a list or an object in JSON or Python; None for any other text."""
    if not text.strip().startswith(("[", "{", "(", "set()")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass  # not JSON, perhaps Python
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes in the text
            value = ast.literal_eval(_MISSING_COMMA.sub(", ", text.strip()))
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None
    return list(value) if isinstance(value, tuple | set) else value


def _name_values(sets: list[Items], location: str, names: Sequence[str]) -> list[Items]:
    """Convert lists with a value from 0 to 1 for each label to objects.

    Raises:
        DataError: names for such lists, or for integers, are missing.
    """
    lists = [items for items in sets if isinstance(items, list) and items]
    items = [item for values in lists for item in values]
    is_vector = (
        len({len(values) for values in lists}) == 1
        and len(lists[0]) > 1
        and all(isinstance(item, int | float) and 0 <= item <= 1 for item in items)
    )
    if is_vector and len(names) == len(lists[0]):
        return [dict(zip(names, values, strict=True)) if values else {} for values in sets]
    if items and (is_vector or not names) and all(_integer(i) is not None for i in items):
        raise DataError(
            f"{location}: the labels are {'values of 0 and 1' if is_vector else 'integers'}; name "
            f"{len(lists[0]) if is_vector else 'them, from 0,'} with --label-names A,B,C"
        )
    return sets


def _label_values(items: Items, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each label of a set with its value; raises ValueError for an invalid item."""
    if isinstance(items, dict):
        yield from ((_check(key), "" if v is None else str(v)) for key, v in items.items())
        return
    for item in items:
        integer = _integer(item)
        if names and integer is not None:
            if integer >= len(names):
                raise ValueError(f"label {integer} has no name: there are {len(names)}")
            yield names[integer], "1"
        elif str(item).strip():
            yield _check(item), "1"


def _integer(item: Any) -> int | None:
    """Return an item that is a whole number, also as text; None for any other."""
    text = str(item).strip().removesuffix(".0")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else None


def _check(name: Any) -> str:
    """Return the name of a label; raises ValueError for a value that may be a comment."""
    text = str(name).strip()
    if (
        not isinstance(name, str)
        or not 0 < len(text) <= _MAX_NAME
        or len(text.split()) > _MAX_WORDS
    ):
        quoted = safe_quote(text, "a text", characters=12, words=1)
        raise ValueError(f"{quoted} is not the name of a label")
    return text
