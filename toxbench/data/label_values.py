"""The meaning of the values in a label column."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

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
