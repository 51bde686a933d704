"""Atomic writes: a file is complete or does not exist."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError

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


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to write that becomes ``path`` when the context ends.

    The temporary folder is next to ``path``. If the context ends without an error, it is published
    as `publish_folder` does; otherwise it is removed.

    Raises:
        StorageError: the disk is full, the folder cannot be written, or ``path`` is not empty.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(TEMPORARY_SUFFIX, f".{path.name[:40]}-", path.parent))
        yield temporary
        temporary.chmod(0o755)
        publish_folder(temporary, path)
    except (OSError, SafetensorError) as error:
        raise write_error(path, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def publish_folder(temporary: Path, path: Path) -> None:
    """Sync a folder and its files to the disk, then rename it to ``path``.

    Args:
        temporary: the folder, complete, on the file system of ``path``.
        path: must not exist, or be an empty folder.

    Raises:
        OSError: a file cannot be synced, or the folder cannot be renamed.
    """
    for entry in temporary.rglob("*"):
        if entry.is_dir():
            sync_folder(entry)
        else:
            with entry.open("rb+") as file:
                os.fsync(file.fileno())
    sync_folder(temporary)
    os.replace(temporary, path)
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and its parents, unless they exist.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError | SafetensorError) -> StorageError:
    """Return the error for a path that cannot be written, with the reason and the remedy.

    safetensors raises a separate class of error when it cannot write a file, in practice because
    the disk is full; the class has no ``errno``.
    """
    if isinstance(error, OSError):
        reason, is_full = error.strerror, error.errno in DISK_FULL_ERRORS
    else:
        reason, is_full = str(error), True
    remedy = "make room" if is_full else "make it writable or write elsewhere"
    return StorageError(f"cannot write {path}: {reason}; {remedy} and start the same command again")


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
