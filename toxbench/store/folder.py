"""Locks, checks and repairs of a results folder: links, permissions, damage."""

import itertools
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from toxbench.errors import StorageError, TryAgainError
from toxbench.settings import FrozenModel
from toxbench.util.atomic import TEMPORARY_SUFFIX, make_folder, write_atomically, write_error

_MAX_SPARSE_BYTES = 2**30


class DamagedError(StorageError):
    """The content of a file does not match its checksum or its schema."""


@contextmanager
def read_errors(path: Path, remedy: str) -> Iterator[None]:
    """Convert the errors of reading and parsing a file.

    Raises:
        DamagedError: the content is invalid; ``remedy`` is the end of the message.
        StorageError: the file cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except (
        ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError,
    ) as error:  # fmt: skip
        raise DamagedError(f"{path} is damaged; {remedy}") from error


def refuse_special_files(folder: Path) -> None:
    """Raise `StorageError` unless a folder and all below are folders and regular files.

    A link leads elsewhere, reading a FIFO or a device may never end, and a sparse file of a
    terabyte would fill the memory.
    """
    below = (Path(parent, n) for parent, dirs, files in os.walk(folder) for n in (*dirs, *files))
    for path in (folder, *below):
        with suppress(FileNotFoundError, NotADirectoryError):  # missing, or just removed
            kind = _special_kind(path.lstat())
            if kind is not None:
                raise StorageError(
                    f"{path} is {kind}, and toxbench uses only regular files below a results "
                    "folder; remove it, or use another --results"
                )


def _special_kind(status: os.stat_result) -> str | None:
    """Return what a file is in words; None for folders and files that can be read."""
    if stat.S_ISLNK(status.st_mode):
        return "a symbolic link"
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        return "a FIFO, a socket or a device"
    allocated = 512 * getattr(status, "st_blocks", math.inf)  # bytes; unknown on Windows
    is_sparse = status.st_size > _MAX_SPARSE_BYTES and allocated < status.st_size / 2
    return "a sparse file" if is_sparse else None


def check_writable(folder: Path) -> None:
    """Create a folder if it does not exist, and check that files can be created in it.

    Raises:
        StorageError: it cannot be created or written.
    """
    make_folder(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise write_error(folder, error) from error


def remove_partial_files(folder: Path) -> None:
    """Remove the temporary files of killed processes; no other process may be writing there."""
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def quarantine_damaged(
    paths: Iterable[Path], read: Callable[[Path], object], remedy: str
) -> Iterator[str]:
    """Rename each damaged file to ``<name>.corrupt``; it is kept, so that it can be examined.

    Args:
        paths: the files; missing ones are skipped.
        read: reads a file and raises `DamagedError` if it is damaged.
        remedy: end of the message, such as "it is written again".

    Yields:
        one message for each file that was renamed.

    Raises:
        StorageError: a file cannot be read or renamed, or a newer toxbench wrote it.
    """
    for path in filter(Path.is_file, paths):
        try:
            read(path)
        except DamagedError:
            yield f"{path} was damaged and is now {quarantine(path).name}; {remedy}"


def quarantine(path: Path) -> Path:
    """Rename a file or folder to ``<name>.corrupt`` and return its new path.

    Raises:
        StorageError: it cannot be renamed.
    """
    names = (f"{path.name}.corrupt{f'-{n}' if n > 1 else ''}" for n in itertools.count(1))
    target = next(p for name in names if not os.path.lexists(p := path.with_name(name)))
    try:
        os.replace(path, target)
    except OSError as error:
        raise StorageError(f"cannot move {path} aside: {error.strerror}") from error
    return target


class LockOwner(FrozenModel):
    """The process that holds a lock, and since when; neither its machine nor its user."""

    pid: int
    since: datetime


@contextmanager
def hold_lock(path: Path, timeout: float = math.inf) -> Iterator[None]:
    """Hold a lock while the context lasts; wait ``timeout`` seconds for another process.

    The file must be in an existing folder. It is not removed afterwards.

    Raises:
        TryAgainError: another process holds the lock.
        StorageError: the file cannot be created or locked.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if timeout == math.inf else timeout)
    except Timeout as error:
        raise TryAgainError(
            f"another run{_owner_text(path)} is writing to {path.parent}; wait for it, or use "
            "another --results"
        ) from error
    except OSError as error:
        raise write_error(path.parent, error) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def write_owner(path: Path) -> Iterator[None]:
    """Write this process as the owner of a lock that it holds; remove the file afterwards.

    Raises:
        StorageError: the folder cannot be written.
    """
    since = datetime.now(UTC).isoformat(timespec="seconds")
    owner_path = _owner_path(path)
    write_atomically(owner_path, json.dumps({"pid": os.getpid(), "since": since}).encode("ascii"))
    try:
        yield
    finally:
        with suppress(OSError):  # the next owner replaces the file
            owner_path.unlink()


def _owner_text(path: Path) -> str:
    try:
        owner = LockOwner.model_validate_json(_owner_path(path).read_bytes())
    except (OSError, ValidationError):  # it holds the lock, but has not written its file yet
        return ""
    return f" (process {owner.pid}, since {owner.since:%Y-%m-%d %H:%M:%S} UTC)"


def _owner_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder")
