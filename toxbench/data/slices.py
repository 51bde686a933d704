"""Slices of rows: the values of a column, and groups of people that a text mentions."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from toxbench.data.groups import normalize_text
from toxbench.errors import DataError
from toxbench.util.arrays import Members
from toxbench.util.text import safe_quote

Terms = Mapping[str, tuple[str, ...]]  # group -> its terms, in the form of `normalize_text`
MAX_SLICES = 20  # of one column


def column_slices(name: str, values: Sequence[str | None]) -> dict[str, Members]:
    """Return the rows of the `MAX_SLICES` most frequent values of the column, by printable name.

    Args:
        name: of the column.
        values: of the rows, ``[row]``; None for a blank cell.
    """
    cells = np.array([value or "" for value in values], dtype=np.str_)
    frequent = Counter(value for value in values if value).most_common(MAX_SLICES)
    return {
        f"{safe_quote(name)} = {safe_quote(value, f'value {number}')}": cells == value
        for number, (value, _) in enumerate(frequent, start=1)
    }


def term_slices(terms: Terms, texts: Iterable[str]) -> dict[str, Members]:
    """Return the rows whose text has a term of a group as a whole word, in any case, by group."""
    plain = [normalize_text(text) for text in texts]
    return {
        group: np.array([pattern.search(text) is not None for text in plain], dtype=np.bool_)
        for group, words in terms.items()
        for pattern in [_pattern(words)]
    }


def swap_terms(terms: Terms, text: str) -> str:
    """Replace each term by the one at the same place of the next group that has one."""
    groups, substitutes = list(terms.values()), dict[str, str]()
    for number, words in enumerate(groups):
        others = [*groups[number + 1 :], *groups[:number]]
        for place, word in enumerate(words):
            same_place = (other[place] for other in others if len(other) > place)
            substitutes.setdefault(word, next(same_place, word))
    pattern = _pattern(substitutes)
    return pattern.sub(lambda match: substitutes.get(normalize_text(match[0]), match[0]), text)


def read_terms(path: Path | None = None) -> Terms:
    """Read a list with lines ``group: term, term``; ``#`` starts a comment.

    Args:
        path: None for the English list of this package.

    Raises:
        DataError: the file cannot be read, or a line has another form.
    """
    source = files("toxbench.data").joinpath("identity_terms.txt") if path is None else path
    try:
        terms = dict(_parse(source.read_text(encoding="utf-8"), path))
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({type(error).__name__})") from error
    if not terms:
        raise DataError(f"{path}: there are no terms; write a line such as: women: women, female")
    return terms


def _parse(text: str, path: Path | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        group, _, words = content.partition(":")
        terms = tuple(term for word in words.split(",") if (term := normalize_text(word)))
        if content and not (group.strip() and terms):
            raise DataError(f"{path}: line {number} is not of the form group: term, term")
        if content:
            yield group.strip(), terms


def _pattern(terms: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that finds the longest of several terms that start at the same place."""
    longest_first = "|".join(map(re.escape, sorted(terms, key=len, reverse=True)))
    return re.compile(rf"(?<!\w)(?:{longest_first})(?!\w)", re.IGNORECASE)
