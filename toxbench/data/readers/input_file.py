"""A file of a table: its kind, its content without compression, and its header."""

import codecs
import gzip
import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from toxbench.errors import DataError
from toxbench.settings import FALSE_WORDS, TRUE_WORDS, normalize_word
from toxbench.util.text import safe_quote

_GZIP, _ZIP, _ZSTD = b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd"
_KINDS = {b"PAR1": ".parquet", b"ARROW1": ".arrow"}  # start of the content -> suffix
_ENCRYPTED = 1  # a bit of the flags of a file in a zip archive

Open = Callable[[], Any]  # returns a binary stream
MAX_PROBLEMS = 10
MAX_COLUMNS = 10_000
_MAX_COLUMNS_SHOWN = 8
# Unlikely as the name of a column: a table without a header has its first row there.
_VALUES = TRUE_WORDS | FALSE_WORDS | {"yes", "no"}


@dataclass(frozen=True)
class InputFile:
    """A file of a table.

    Attributes:
        path: of the file, for messages.
        kind: suffix of its format, by its content or else by its name without compression.
        open: opens the content without compression, as a stream that can seek.
    """

    path: Path
    kind: str
    open: Open

    def open_text(self, encoding: str, newline: str = "") -> TextIO:
        """Open the content as text; ``newline`` as in `open`."""
        return io.TextIOWrapper(self.open(), encoding=encoding, newline=newline)


def find_input(path: Path) -> InputFile:
    """Return a file with its kind and without its compression (gzip, zip or zstd).

    Raises:
        DataError: a zip archive does not hold exactly one file, or the file is encrypted.
    """
    open_content: Open = lambda: path.open("rb")  # noqa: E731
    name, start = path.name, _start(open_content)
    if start.startswith(_ZIP):
        member = _only_member(path)
        if member.startswith("xl/"):
            return InputFile(path, ".xlsx", open_content)
        name, open_content = member, lambda: _open_member(path, member)
    elif start.startswith(_GZIP):
        name, open_content = path.stem, lambda: gzip.GzipFile(path)
    elif start.startswith(_ZSTD):
        name, open_content = path.stem, lambda: _open_zstd(path)
    start = _start(open_content)
    by_content = (kind for magic, kind in _KINDS.items() if start.startswith(magic))
    return InputFile(path, next(by_content, Path(name).suffix.lower()), open_content)


def check_encoding(file: InputFile, encoding: str) -> str:
    """Decode the whole file once; return the encoding, in a form that skips a byte order mark.

    Raises:
        DataError: the encoding is unknown, or a byte is not in it; with the byte offset.
        UnicodeError: the decoded text is not valid Unicode.
    """
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # refuses codecs that are not for text
        name = codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise DataError(f"{file.path}: unknown text encoding {safe_quote(encoding)}") from error
    is_utf8 = name in {"utf-8", "utf-8-sig"}
    decoder = codecs.getincrementaldecoder("utf-8" if is_utf8 else name)()
    offset = 0
    with file.open() as stream:
        while True:
            chunk = stream.read(1 << 20)
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeError as error:
                bad_byte = offset - pending + getattr(error, "start", 0)
                raise DataError(_encoding_message(file, encoding, bad_byte)) from error
            if not is_utf8:
                text.encode("utf-8")  # some encodings can represent half of a surrogate pair
            offset += len(chunk)
            if not chunk:
                return "utf-8-sig" if is_utf8 else name


def _encoding_message(file: InputFile, encoding: str, bad_byte: int) -> str:
    is_utf16 = _start(file.open).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    likely = "utf-16" if is_utf16 else "cp1252" if encoding != "cp1252" else "utf-8"
    return (
        f"{file.path}: byte {bad_byte} is not {encoding}; name the encoding, "
        f"for example --encoding {likely}, or save the file as UTF-8"
    )


def _start(open_content: Open) -> bytes:
    with open_content() as stream:
        start: bytes = stream.read(8)
        return start


def _only_member(path: Path) -> str:
    """Return the name of the only file in a zip archive, or ``xl/workbook.xml`` of Excel."""
    with zipfile.ZipFile(path) as archive:
        files = {file.filename: file for file in archive.infolist() if not file.is_dir()}
    names = [name for name in files if not name.startswith("__MACOSX/")]
    if "xl/workbook.xml" in names:
        return "xl/workbook.xml"
    if len(names) != 1:
        raise DataError(f"{path}: the archive holds {len(names)} files; put one table into it")
    if files[names[0]].flag_bits & _ENCRYPTED:
        raise DataError(f"{path}: the archive is encrypted; extract the table first")
    return names[0]


def _open_member(path: Path, member: str) -> Any:
    with zipfile.ZipFile(path) as archive:  # its file stays open until the member is closed
        return archive.open(member)


def _open_zstd(path: Path) -> io.BytesIO:
    import pyarrow as pa

    with pa.input_stream(str(path), compression="zstd") as stream:
        return io.BytesIO(stream.read())


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
