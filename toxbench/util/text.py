"""Formatting of numbers, and escaping, hiding and redaction of text."""

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

_MAX_ITEMS = 10  # of one list in a message
_SECRET_NAME = re.compile(  # of an environment variable or a URL's parameter
    r"(TOKENS?|SECRETS?|PASSW\w*|PASSPHRASE|CREDENTIALS?|KEYS?(_ID)?|_PWD)(_|$)", re.IGNORECASE
)
_MINIMUM_LENGTH = 4  # characters of a secret; shorter ones would erase ordinary words
_SECRET_PATTERN = re.compile(  # tokens of the Hub; user:password of URLs
    r"\bhf_\w{8,}|(?<=://)[^/\s@]+:[^/\s@]+(?=@)"
)


def join_names(names: Iterable[object]) -> str:
    """Join names by commas, in quotes where a name has a comma; `split_names` is the inverse."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()


def split_names(text: str) -> list[str]:
    """Split names at commas outside of double quotes; blank names are left out."""
    fields = text.split(",")
    if '"' in text:
        rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
        fields = list(chain.from_iterable(rows))
    return [name.strip() for name in fields if name.strip()]


def format_millions(count: int | None) -> str:
    """Format a number of parameters: ``22.7 M``; ``-`` if it is None."""
    return "-" if count is None else f"{count / 1e6:.1f} M"


def format_duration(seconds: float) -> str:
    """Format a time in a suitable unit: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def count_of(count: int, noun: str) -> str:
    """Return ``1 cell`` or ``2 cells``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def first_items(items: Iterable[str], count: int) -> Iterator[str]:
    """Yield at most ten of ``count`` items, then the number of omitted ones."""
    yield from islice(items, _MAX_ITEMS)
    if count > _MAX_ITEMS:
        yield f"and {count - _MAX_ITEMS} more"


def list_items(items: Sequence[str]) -> str:
    """Join at most ten items by commas, followed by the number of omitted ones."""
    return ", ".join(first_items(items, len(items)))


def format_value(value: object) -> str:
    """Format a value of a table on one line: None as ``-``, a float with three decimals."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else escape_line(str(value))


def format_setting(value: object) -> str:
    """Format the value of a setting: a float with three significant digits, None as unset."""
    return f"{value:.3g}" if isinstance(value, float) else "unset" if value is None else str(value)


def safe_quote(text: str, kind: str = "a name", characters: int = 32, words: int = 3) -> str:
    """Quote a text for a message, or describe it by its length if it may be a comment."""
    if len(text) > characters or len(text.split()) > words:
        return f"{kind} of {len(text)} characters"
    return ascii(text)


def safe_keys(keys: Iterable[object]) -> str:
    """Join the keys of a setting or a field of a file with dots, as `safe_quote` without quotes."""
    return ".".join(safe_quote(str(key), words=1).strip("'") for key in keys)


def safe_value(value: object) -> str:
    """Return a value for a message if it is short and holds no text of a table, or its type."""
    if isinstance(value, str):
        return safe_quote(value, "a text")
    is_plain = value is None or isinstance(value, bool | int | float)
    return repr(value) if is_plain else f"a {type(value).__name__}"


def hide_texts(message: str, texts: Iterable[str]) -> str:
    """Replace texts of a table, as they are or quoted, in a message of foreign code.

    Those of less than four characters remain: they would be found in other words.
    """
    for text in (text for text in texts if len(text) > 3):
        for form in {text, " ".join(text.split()), ascii(text)[1:-1], repr(text)[1:-1]}:
            if form in message:
                whole_words = rf"(?<!\w){re.escape(form)}(?!\w)"
                message = re.sub(whole_words, f"(a text of {len(text)} characters)", message)
    return message


def escape_line(text: str) -> str:
    """Escape characters that control a terminal; line breaks become spaces."""
    one_line = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in one_line)


def escape_text(text: str) -> str:
    """Escape characters that control a terminal, except line breaks and tabs."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def is_secret(name: str) -> bool:
    """Return whether a variable or parameter of this name holds a secret, such as ``HF_TOKEN``."""
    return _SECRET_NAME.search(name) is not None


def redact(text: str) -> str:
    """Remove secrets, the home folder and the user's name from a message.

    Secrets are the values of environment variables with a name like ``..._TOKEN``, tokens of the
    Hugging Face Hub, and passwords in URLs.
    """
    text = _SECRET_PATTERN.sub("***", text)
    secrets = {value for name, value in os.environ.items() if is_secret(name)}
    for value in sorted(secrets, key=len, reverse=True):
        if len(value) >= _MINIMUM_LENGTH:
            text = text.replace(value, "***")
    for home in _home_paths():
        text = re.sub(rf"{re.escape(home)}(?![\w-])", "~", text)
    users = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME")} - {""}
    for user in users:
        text = re.sub(rf"(?<!\w){re.escape(user)}(?!\w)", "USER", text)
    return text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates cannot be stored


def _home_paths() -> list[str]:
    """Return all paths of the home folder, the longest first; none if it is the root."""
    home = os.path.expanduser("~").rstrip("/")
    paths = {home, os.path.realpath(home)} if home not in {"", "~"} else set()
    return sorted(paths, key=len, reverse=True)
