"""Words for messages about a table: what helps is shown, what may be a comment is not."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from toxbench.errors import DataError
from toxbench.settings import FALSE_WORDS, TRUE_WORDS, plain_word

MAX_PROBLEMS = 10
_COLUMNS_SHOWN = 8
_LONGEST_VALUE = 12
# Odd as the name of a column: a table without a header has its first row there.
_VALUES = TRUE_WORDS | FALSE_WORDS | {"yes", "no", "1.0", "0.0"}


def shown(name: str, kind: str = "a name") -> str:
    """Quote a column's name or an id for a message, unless it may be somebody's comment."""
    if len(name) > 32 or len(name.split()) > 3:
        return f"{kind} of {len(name)} characters"
    return ascii(name)


def shown_value(value: str) -> str:
    """Quote a bad value for a message, unless it may be somebody's comment."""
    if len(value) > _LONGEST_VALUE or len(value.split()) > 1:
        return f"a text of {len(value)} characters"
    return ascii(value)


def names_to_show(names: Iterable[str]) -> list[str]:
    """Return the names that a message may print; none where the header looks like a row."""
    names = list(names)
    if _is_a_row(names) or _is_a_text(names):
        return []
    return [name for name in names if shown(name) == ascii(name)]


def columns_found(names: Iterable[str]) -> str:
    """List the columns of a table for a message."""
    names = list(names)
    if _is_a_row(names):
        return (
            f"{len(names)} without names (the first line looks like a row of values; put a line "
            "of column names above it)"
        )
    if _is_a_text(names):
        return f"a name of {len(names[0])} characters"
    return ", ".join([*map(shown, names[:_COLUMNS_SHOWN]), *["..."][: len(names) > _COLUMNS_SHOWN]])


def check_unique(path: Path, names: Sequence[str]) -> None:
    """Refuse a header that says one name twice; raises `DataError`."""
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is None:
        return
    if _is_a_row(names):
        raise DataError(f"{path}: two columns have one name, among {columns_found(names)}")
    raise DataError(f"{path}: column {shown(repeated)} stands twice in the header; rename one")


def _is_a_text(names: Sequence[str]) -> bool:
    """Whether this may be the first line of a file of comments, one a line."""
    return len(names) == 1 and len(names[0].split()) > 1


def _is_a_row(names: Iterable[str]) -> bool:
    return any(plain_word(name) in _VALUES for name in names)
