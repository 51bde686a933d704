"""Names of a table's columns in messages, and checks of its header."""

from collections import Counter
from collections.abc import Iterable, Sequence

from toxbench.errors import DataError
from toxbench.settings import FALSE_WORDS, TRUE_WORDS, normalize_word
from toxbench.util.text import safe_quote

MAX_PROBLEMS = 10
MAX_COLUMNS = 10_000
_MAX_COLUMNS_SHOWN = 8
# Unlikely as the name of a column: a table without a header has its first row there.
_VALUES = TRUE_WORDS | FALSE_WORDS | {"yes", "no"}


def printable_names(names: Iterable[str]) -> list[str]:
    """Return the names that a message may print; none if the header looks like a row."""
    names = list(names)
    if _is_row_of_values(names) or _is_text(names):
        return []
    return [name for name in names if safe_quote(name) == ascii(name)]


def format_columns(names: Iterable[str]) -> str:
    """Return the columns of a table as a list for a message."""
    names = list(names)
    if _is_row_of_values(names):
        return (
            f"{len(names)} without names (the first line looks like a row of values; put a line "
            "of column names above it)"
        )
    if _is_text(names):
        return f"a name of {len(names[0])} characters"
    quoted = [safe_quote(name) for name in names[:_MAX_COLUMNS_SHOWN]]
    return ", ".join([*quoted, "..."] if len(names) > _MAX_COLUMNS_SHOWN else quoted)


def check_header(source: object, names: Sequence[str]) -> None:
    """Refuse a header with a repeated name or too many names; raises `DataError`."""
    check_width(source, len(names))
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is None:
        return
    if _is_row_of_values(names):
        columns = format_columns(names)
        raise DataError(f"{source}: two columns have the same name, among {columns}")
    raise DataError(
        f"{source}: column {safe_quote(repeated)} appears twice in the header; rename one"
    )


def check_width(source: object, columns: int) -> None:
    """Refuse a table that is too wide to be held in memory; raises `DataError`."""
    if columns > MAX_COLUMNS:
        raise DataError(
            f"{source}: more than {MAX_COLUMNS} columns; keep the text, id, group and label columns"
        )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _is_row_of_values(names: Iterable[str]) -> bool:
    return any(normalize_word(name) in _VALUES for name in names)


def _is_text(names: Sequence[str]) -> bool:
    """Return whether this may be the first line of a file with one comment per line."""
    return len(names) == 1 and len(names[0].split()) > 1
