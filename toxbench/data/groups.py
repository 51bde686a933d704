"""Groups of rows: equal texts, and slices by a column or by the people that a text names."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toxbench.data.table import TextDataset
from toxbench.errors import DataError
from toxbench.util.arrays import Members
from toxbench.util.text import safe_quote

Numbers = npt.NDArray[np.int64]

DIGEST_BYTES = 16  # two different texts have equal digests with a probability of 1 in 2 ** 128
_NONE_DIGEST = bytes(DIGEST_BYTES)
Terms = Mapping[str, tuple[str, ...]]  # group -> its terms, in the form of `normalize_text`
MAX_SLICES = 20  # of one column


def normalize_text(text: str) -> str:
    """Return a text in NFKC form, case-folded, with single spaces; equal comments compare equal."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def row_groups(comments: TextDataset) -> npt.NDArray[np.int64]:
    """Number the groups of rows that must stay in one part of a split.

    Two rows are in one group if they have the same value in the table's group column, if their
    texts are equal after `normalize_text`, or if a chain of such rows connects them. Any other
    row is a group by itself.

    Returns:
        int64 ``[row]``: numbers from 0, in the order of each group's first row.
    """
    from scipy.sparse import coo_array  # imported here: printing a leaderboard does not need it
    from scipy.sparse.csgraph import connected_components

    texts = group_ids(map(normalize_text, comments.texts))
    if comments.groups is None:
        return texts
    groups = group_ids(comments.groups)
    grouped = np.flatnonzero(groups >= 0)
    # A graph of texts and groups, with an edge for every row that has both.
    text_count = texts.max(initial=-1) + 1
    edges = (np.ones(len(grouped), np.int8), (texts[grouped], text_count + groups[grouped]))
    nodes = text_count + groups.max(initial=-1) + 1
    _, components = connected_components(coo_array(edges, shape=(nodes, nodes)), directed=False)
    row_components = components[texts].astype(np.int64)
    return relabel_by_first_seen(np.argsort(row_components, kind="stable"), row_components)


def group_ids(values: Iterable[str | None]) -> Numbers:
    """Number texts in the order in which they first appear.

    Args:
        values: texts of any length; only their digests are kept in memory.

    Returns:
        int64 ``[value]``: numbers from 0, equal for equal values; -1 for None.
    """
    digests = bytearray()
    for value in values:
        digests += _NONE_DIGEST if value is None else text_digest(value)
    halves = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
    numbers = relabel_by_first_seen(np.lexsort(halves.T), halves)
    is_none = np.asarray(~halves.any(axis=1))
    if not is_none.any():
        return numbers
    none_number = numbers[is_none][0]
    return np.where(is_none, -1, numbers - (numbers > none_number))


def relabel_by_first_seen(order: Numbers, keys: npt.NDArray[np.generic]) -> Numbers:
    """Number keys from 0 in the order in which they first appear; equal keys get one number.

    Args:
        order: result of a stable sort of the keys, ``[key]``.
        keys: ``[key]`` or ``[key, column]``.
    """
    is_start = run_starts(keys[order])
    first_positions = order[is_start]  # the first of equal keys, because the sort is stable
    ranks = np.empty(len(first_positions), dtype=np.int64)
    ranks[np.argsort(first_positions)] = np.arange(len(first_positions))
    numbers = np.empty(len(keys), dtype=np.int64)
    numbers[order] = ranks[np.cumsum(is_start) - 1]
    return numbers


def run_starts(ordered: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Return whether each key differs from the one before it, bool ``[key]``.

    Args:
        ordered: sorted keys, ``[key]`` or ``[key, column]``.
    """
    is_start = np.ones(len(ordered), dtype=bool)
    differs = ordered[1:] != ordered[:-1]
    is_start[1:] = differs if differs.ndim == 1 else differs.any(axis=1)
    return is_start


def text_digest(value: str) -> bytes:
    """Return a short digest of a text, as bytes of a fixed length."""
    return blake2b(value.encode("utf-8"), digest_size=DIGEST_BYTES).digest()


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
