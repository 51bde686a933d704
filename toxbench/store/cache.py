"""The cache folder: its content and its bound. A process that uses it keeps it from removals."""

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from toxbench.errors import StorageError, TryAgainError
from toxbench.util.atomic import cache_folder, make_folder

MAX_TOKEN_BYTES = 10 * 10**9
KINDS: Mapping[str, str] = {
    "tokens": "tokens of tables",
    "stand-ins": "stand-in weights",
    "scratch": "configuration of backbones without weights",
    "sent": "weights that a Ray cluster sent",
    "baselines": "files of baselines",
}  # subfolder -> content
_USERS = ".users"  # subfolder with a lock for each process that uses the cache


@contextmanager
def use_cache() -> Iterator[None]:
    """Keep other processes from removing files of the cache until the context ends.

    At the start, the oldest tokens beyond `MAX_TOKEN_BYTES` are removed, unless another process
    uses the cache.
    """
    users = cache_folder() / _USERS
    try:
        make_folder(users)
    except StorageError:
        yield  # a folder that cannot be written needs no protection; tokens will raise the error
        return
    own = FileLock(users / f"{os.getpid()}-{uuid.uuid4().hex}.user")
    with FileLock(users / ".lock"):
        if not _is_used(users):
            _remove_old_tokens()
        own.acquire()
    try:
        yield
    finally:
        own.release()
        Path(own.lock_file).unlink(missing_ok=True)


def clear_cache() -> None:
    """Remove all files of the cache.

    Raises:
        TryAgainError: a process uses them.
        StorageError: the folder cannot be written.
    """
    users = cache_folder() / _USERS
    make_folder(users)
    with FileLock(users / ".lock"):
        if _is_used(users):
            raise TryAgainError(
                f"a run uses the files in {cache_folder()}; clear them when it has ended"
            )
        for kind in KINDS:
            shutil.rmtree(cache_folder() / kind, ignore_errors=True)


def cache_sizes() -> dict[str, tuple[int, int]]:
    """Return kind -> number of files and their bytes."""
    files = {kind: _files(kind).values() for kind in KINDS}
    return {kind: (len(found), sum(f.st_size for f in found)) for kind, found in files.items()}


def _files(kind: str) -> dict[Path, os.stat_result]:
    files = {}
    for path in (cache_folder() / kind).rglob("*"):
        with suppress(FileNotFoundError):  # a temporary file that now has another name
            if path.is_file():
                files[path] = path.stat()
    return files


def _remove_old_tokens() -> None:
    files = _files("tokens")
    total = sum(status.st_size for status in files.values())
    for path, status in sorted(files.items(), key=lambda item: item[1].st_mtime):
        if total <= MAX_TOKEN_BYTES:
            return
        path.unlink()
        total -= status.st_size


def _is_used(users: Path) -> bool:
    """Whether a process holds a lock; remove the locks of processes that ended."""
    is_used = False
    for path in users.glob("*.user"):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            is_used = True
        else:
            lock.release()
            path.unlink(missing_ok=True)
    return is_used
