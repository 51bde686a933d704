"""Atomic writes: a file is complete or does not exist."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from toxbench.errors import StorageError

TEMPORARY_SUFFIX = ".tmp"  # of files that are being written
DISK_FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, a crash or a full disk never leaves a part of it.

    Raises:
        StorageError: like `atomic_file`.
    """
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write; it appears as ``path`` when the context ends without an error.

    A temporary file in the same folder is written, synced to the disk and renamed. Then the
    folder is synced, so that the rename itself survives a power cut.

    Raises:
        StorageError: the folder cannot be written. No temporary file remains.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(TEMPORARY_SUFFIX, f".{path.name[:40]}-", path.parent)
    except OSError as error:
        raise write_error(path, error) from error
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
            raise write_error(path, error) from error
        raise


def make_folder(path: Path) -> None:
    """Make a folder and its parents, unless they exist.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> StorageError:
    """Return the error to raise when a path cannot be written, with the reason and a remedy."""
    is_disk_full = error.errno in DISK_FULL_ERRORS
    remedy = "make room" if is_disk_full else "make it writable or write elsewhere"
    return StorageError(
        f"cannot write {path}: {error.strerror}; {remedy} and start the same command again"
    )


def sync_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that changes of its entries survive a power cut."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cache_folder() -> Path:
    """Return the folder for reproducible files: ``TOXBENCH_CACHE``, or in the user's cache."""
    configured = os.environ.get("TOXBENCH_CACHE")
    if configured:
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "toxbench"
