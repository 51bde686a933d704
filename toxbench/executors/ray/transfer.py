"""Copies of folders on other machines, identified by the hashes of their files."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from toxbench.errors import StorageError
from toxbench.util.atomic import atomic_folder, write_error
from toxbench.util.hashing import sha256_file

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")  # never loaded, so never sent


def list_files(folder: Path) -> list[Path]:
    """Return the files directly in a folder, by name, without pickles and hidden files."""
    files = (p for p in folder.iterdir() if not p.name.startswith(".") and p.is_file())
    return sorted(path for path in files if path.suffix not in _PICKLES)


def hash_files(folder: Path) -> dict[str, str]:
    """Return name -> sha256 of the files of a folder; {} if it cannot be read."""
    try:
        return {path.name: sha256_file(path) for path in list_files(folder)}
    except OSError:
        return {}


def find_folder(folder: Path, hashes: Mapping[str, str], cache: Path) -> Path | None:
    """Return a folder of this machine with exactly these files; None if there is none.

    Args:
        folder: its path on the main machine, which may be shared with this one.
        hashes: name -> sha256.
        cache: holds folders that were sent earlier.
    """
    candidates = (folder, cached_folder(hashes, cache))
    return next((path for path in candidates if hash_files(path) == hashes), None)


def cached_folder(hashes: Mapping[str, str], cache: Path) -> Path:
    """Return the path in the cache of a folder with these files."""
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(hashes.items()))
    return cache / "sent" / hashlib.sha256(lines.encode("utf-8")).hexdigest()[:24]


def cache_files(hashes: Mapping[str, str], read: Callable[[str], bytes], cache: Path) -> Path:
    """Write files that were sent to a folder of the cache, atomically; return the folder.

    Args:
        hashes: name -> sha256.
        read: returns the content of a file, given its name.
        cache: holds folders that were sent.

    Raises:
        StorageError: the cache cannot be written, or a file has another hash.
    """
    folder = cached_folder(hashes, cache)
    try:
        with atomic_folder(folder) as temporary:
            for name in hashes:
                (temporary / name).write_bytes(read(name))
            if hash_files(temporary) != hashes:
                raise StorageError(f"{folder}: files arrived damaged; start the command again")
            shutil.rmtree(folder, ignore_errors=True)
    except StorageError:
        if hash_files(folder) != hashes:  # else another process wrote the same folder
            raise
    return folder


def read_files(folder: Path) -> dict[str, bytes]:
    """Return relative path -> content of all files below a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files, relative path -> content, that `read_files` read on another machine.

    Raises:
        StorageError: the folder cannot be written, or a path leads out of it.
    """
    for name, content in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise StorageError(
                f"a node of the Ray cluster sent a file named {name!r}, which is outside of "
                f"{folder}; check that node"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise write_error(path, error) from error
