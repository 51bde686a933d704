"""Files that are there whole or not at all."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from toxbench.errors import StorageError

TEMPORARY = ".tmp"  # what names of files end with that are being written
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, a crash or a full disk never sees half of it.

    Raises:
        StorageError: as `atomic_file`.
    """
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write that is there as ``path`` once the context ends, and not before.

    A temporary file in the same folder is written, synced to the disk and renamed; then the
    folder is synced, so that the rename itself survives a power cut.

    Raises:
        StorageError: the folder cannot be written; nothing is left behind there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(TEMPORARY, f".{path.name[:40]}-", path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> StorageError:
    """Return the error that says what the operating system has against writing, and what to do."""
    remedy = "make room" if error.errno in NO_ROOM else "make it writable or write elsewhere"
    return StorageError(
        f"cannot write {path}: {error.strerror}; {remedy} and start the same command again"
    )


def sync_folder(folder: Path) -> None:
    """Let what was made, renamed or removed in a folder survive a power cut."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cache_folder() -> Path:
    """Folder for what can always be made again: ``TOXBENCH_CACHE``, else the user's cache."""
    named = os.environ.get("TOXBENCH_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "toxbench"
