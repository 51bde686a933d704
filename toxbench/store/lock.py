"""Locks that the kernel frees when their holder dies, and who holds them."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from toxbench.errors import TryAgainError
from toxbench.settings import FrozenModel
from toxbench.util.atomic import write_atomically, write_error


class LockOwner(FrozenModel):
    """Who holds a lock: which process, since when; neither machine nor user."""

    pid: int
    since: datetime


@contextmanager
def locked(path: Path, patience: float = math.inf) -> Iterator[None]:
    """Hold a lock file, in a folder that is there.

    Args:
        path: of the file. It stays behind, unlocked.
        patience: seconds to wait for another process; infinity waits for its end.

    Raises:
        TryAgainError: another process holds it.
        StorageError: the file cannot be made or locked.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if patience == math.inf else patience)
    except Timeout as error:
        raise TryAgainError(
            f"another run{_known_holder(path)} is writing to {path.parent}; wait for it, or use "
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
    """Say beside a lock that is held that it is this process that holds it.

    Raises:
        StorageError: the folder cannot be written.
    """
    since = datetime.now(UTC).isoformat(timespec="seconds")
    beside = _beside(path)
    write_atomically(beside, json.dumps({"pid": os.getpid(), "since": since}).encode("ascii"))
    try:
        yield
    finally:
        with suppress(OSError):  # the next holder writes its own
            beside.unlink()


def lock_owner(path: Path) -> LockOwner | None:
    """Return who signed a lock last; None: nobody, or whoever did has ended in order."""
    try:
        return LockOwner.model_validate_json(_beside(path).read_bytes())
    except (OSError, ValidationError):
        return None


def _known_holder(path: Path) -> str:
    holder = lock_owner(path)
    if holder is None:  # it has the lock, and has not signed yet
        return ""
    return f" (process {holder.pid}, since {holder.since:%Y-%m-%d %H:%M:%S} UTC)"


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder")
