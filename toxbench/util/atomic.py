"""Atomic writes: a file is complete or does not exist."""

import errno
import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import reduce
from operator import and_
from pathlib import Path
from typing import BinaryIO

from platformdirs import user_cache_path
from safetensors import SafetensorError

from toxbench.errors import StorageError

CACHE_VARIABLE = "TOXBENCH_CACHE"
TEMPORARY_SUFFIX = ".tmp"  # of files that are being written
_NAME_LENGTH = 40  # characters of a file's name in the name of its temporary file
# Permission bits of files that all users, or only their owner, may read and write.
ANY_MODE, PRIVATE_MODE = 0o666, 0o600
DISK_FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_atomically(path: Path, data: bytes, max_mode: int = ANY_MODE) -> None:
    """Write a file so that a reader, a crash or a full disk never leaves a part of it.

    Arguments and errors are those of `atomic_file`.
    """
    with atomic_file(path, max_mode) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path, max_mode: int = ANY_MODE) -> Iterator[BinaryIO]:
    """Yield a file to write; it appears as ``path`` when the context ends without an error.

    A temporary file in the same folder is written, synced to the disk and renamed. Then the
    folder is synced, so that the rename itself survives a power cut. An existing file keeps its
    permission bits, and the umask limits those of a new one; ``max_mode`` limits both, so that no
    file is open to more users than the table whose comments it holds.

    Raises:
        StorageError: the folder cannot be written. No temporary file remains.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        handle, temporary = _make_locked(tempfile.mkstemp, path)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if os.name != "posix":
                file.close()  # only POSIX can rename an open file, whose lock lasts until then
            os.chmod(temporary, _mode(path, ANY_MODE) & max_mode)
            os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
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
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent, path.name)
            handle, temporary = _make_locked(_make_folder, path)
            stack.callback(os.close, handle)
            stack.callback(shutil.rmtree, temporary, ignore_errors=True)
            yield temporary
            publish_folder(temporary, path)
        except (OSError, SafetensorError) as error:
            raise write_error(path, error) from error


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove temporary files and folders of killed processes.

    A process locks what it is writing, and the operating system releases the lock when the process
    dies.

    Args:
        folder: where to look.
        name: only those for this file; None: all, in subfolders as well.
    """
    if os.name != "posix":
        return
    prefix = "*" if name is None else glob.escape(name[:_NAME_LENGTH])
    pattern = f".{prefix}-????????{TEMPORARY_SUFFIX}"
    for path in list(folder.rglob(pattern) if name is None else folder.glob(pattern)):
        with suppress(OSError):  # locked, already removed, or not a file
            _remove_unlocked(path)


def publish_folder(temporary: Path, path: Path) -> None:
    """Sync a folder and its files to the disk, then rename it to ``path``.

    Permission bits follow from the umask; an existing ``path`` keeps its own.

    Args:
        temporary: the folder, complete, on the file system of ``path``.
        path: must not exist, or be an empty folder.

    Raises:
        OSError: a file cannot be synced, or the folder cannot be renamed.
    """
    mask = _umask()
    for entry in temporary.rglob("*"):
        if entry.is_dir():
            sync_folder(entry)
        else:
            with entry.open("rb+") as file:
                os.fsync(file.fileno())
        entry.chmod((0o777 if entry.is_dir() else ANY_MODE) & ~mask)
    temporary.chmod(_mode(path, 0o777))
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


def table_mode(*paths: Path | None) -> int:
    """Return the permission bits that files with comments of all these tables may have."""
    modes = (stat.S_IMODE(path.stat().st_mode) | PRIVATE_MODE for path in paths if path)
    return reduce(and_, modes, ANY_MODE)


def _mode(path: Path, new_mode: int) -> int:
    """Return the permission bits of a path; if it is missing, what the umask leaves of others."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return new_mode & ~_umask()


def _umask() -> int:
    """Return the umask, which can only be read by setting it: for a moment to the strictest."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that changes of its entries survive a power cut."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make_locked(make: Callable[[str, str, Path], tuple[int, str]], path: Path) -> tuple[int, Path]:
    """Make a temporary file or folder next to ``path``, locked until its handle is closed."""
    while True:
        handle, temporary = make(TEMPORARY_SUFFIX, f".{path.name[:_NAME_LENGTH]}-", path.parent)
        if os.name == "posix":
            import fcntl

            with suppress(OSError):  # no locks here, and so `remove_leftovers` removes nothing
                fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.lexists(temporary):  # else another process removed it before it was locked
            return handle, Path(temporary)
        os.close(handle)


def _make_folder(suffix: str, prefix: str, parent: Path) -> tuple[int, str]:
    """Make a folder, as `tempfile.mkstemp` makes a file; only POSIX can open a folder."""
    folder = tempfile.mkdtemp(suffix, prefix, parent)
    return os.open(folder if os.name == "posix" else os.devnull, os.O_RDONLY), folder


def _remove_unlocked(path: Path) -> None:
    """Remove a file or folder; raise `OSError` if a process has locked it."""
    import fcntl

    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    finally:
        os.close(handle)


def cache_folder() -> Path:
    """Return the folder for reproducible files: ``TOXBENCH_CACHE``, or in the user's cache."""
    configured = os.environ.get(CACHE_VARIABLE)
    return Path(configured) if configured else user_cache_path("toxbench", appauthor=False)
