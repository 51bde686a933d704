"""Folders that go from one machine to another: hashed, whole or not at all."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from toxbench.errors import StorageError
from toxbench.util.atomic import write_error
from toxbench.util.hashing import sha256_file

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")  # never loaded, so never sent


def files_of(folder: Path) -> list[Path]:
    """Return the files that stand in a folder itself, without pickles, in the order of names."""
    found = (p for p in folder.iterdir() if not p.name.startswith(".") and p.is_file())
    return sorted(path for path in found if path.suffix not in _PICKLES)


def hashes(folder: Path) -> dict[str, str]:
    """Return name -> sha256 of the files of a folder; none where it cannot be read."""
    try:
        return {path.name: sha256_file(path) for path in files_of(folder)}
    except OSError:
        return {}


def folder_here(named: Path, wanted: Mapping[str, str], cache: Path) -> Path | None:
    """Return the folder on this machine that holds the wanted files; None: there is none.

    Args:
        named: where it is on the machine that asks.
        wanted: name -> sha256.
        cache: where folders are kept that were sent.
    """
    places = (named, sent_folder(wanted, cache))
    return next((place for place in places if hashes(place) == wanted), None)


def sent_folder(wanted: Mapping[str, str], cache: Path) -> Path:
    """Return where files with these hashes are kept after they were sent."""
    names = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(wanted.items()))
    return cache / "sent" / hashlib.sha256(names.encode("utf-8")).hexdigest()[:24]


def keep_sent(wanted: Mapping[str, str], read: Callable[[str], bytes], cache: Path) -> Path:
    """Write files that were sent as a folder of the cache; it appears whole or not at all.

    Raises:
        StorageError: the cache cannot be written, or a file came with another hash.
    """
    folder = sent_folder(wanted, cache)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
        try:
            for name in wanted:
                (made / name).write_bytes(read(name))
            if hashes(made) != wanted:
                raise StorageError(f"{folder}: files arrived damaged; start the command again")
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        if hashes(folder) != wanted:  # else another process made the same one meanwhile
            raise write_error(folder, error) from error
    return folder


def take_files(folder: Path) -> dict[str, bytes]:
    """Read all files below a folder, by their paths from there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def put_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files that were taken elsewhere.

    Raises:
        StorageError: the folder cannot be written, or a name leads out of it.
    """
    for name, content in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise StorageError(f"a node sent a file of the name {name!r}, which is not its own")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise write_error(path, error) from error
