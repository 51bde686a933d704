"""Checksums of files and texts, and folders of the cache that are named by their content."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from filelock import FileLock

from toxbench.errors import StorageError
from toxbench.util.atomic import make_folder, remove_leftovers, write_atomically, write_error

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")  # never loaded, so neither hashed nor sent


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal; the file is read in blocks.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def update_with_texts(digest: "hashlib._Hash", texts: Iterable[str]) -> None:
    """Add texts in UTF-8, each preceded by its length in 8 bytes, little-endian."""
    for text in texts:
        data = text.encode("utf-8")
        digest.update(len(data).to_bytes(8, "little") + data)


def list_files(folder: Path) -> list[Path]:
    """Return the files directly in a folder, by name, without pickles and hidden files."""
    files = (p for p in folder.iterdir() if not p.name.startswith(".") and p.is_file())
    return sorted(path for path in files if path.suffix not in PICKLES)


def hash_files(folder: Path) -> dict[str, str]:
    """Return name -> sha256 of the files of a folder; {} if it cannot be read."""
    try:
        return {path.name: sha256_file(path) for path in list_files(folder)}
    except OSError:
        return {}


def content_name(hashes: Mapping[str, str]) -> str:
    """Return 24 hex digits that identify files, given as name -> sha256."""
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(hashes.items()))
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()[:24]


def complete_folder(parent: Path, hashes: Mapping[str, str], read: Callable[[str], bytes]) -> Path:
    """Return the folder with exactly these files, after writing those that it lacks.

    Several processes may do this at once. A file with the right content is never touched, because
    another process may be reading it.

    Args:
        parent: folder of such folders.
        hashes: name -> sha256 of each file.
        read: returns the content of a file, given its name.

    Raises:
        StorageError: the folder cannot be written, or ``read`` returns other content.
    """
    folder = parent / content_name(hashes)
    if hash_files(folder) == hashes:
        return folder
    make_folder(parent)
    try:
        with FileLock(parent / ".lock"):
            _write_missing(folder, hashes, read)
    except OSError as error:
        raise write_error(folder, error) from error
    return folder


def _write_missing(folder: Path, hashes: Mapping[str, str], read: Callable[[str], bytes]) -> None:
    remove_leftovers(folder.parent)
    present = hash_files(folder)
    for name in (name for name, sha256 in hashes.items() if present.get(name) != sha256):
        data = read(name)
        if hashlib.sha256(data).hexdigest() != hashes[name]:
            raise StorageError(f"{folder / name}: arrived damaged; start the command again")
        write_atomically(folder / name, data)
    for name in present.keys() - hashes.keys():
        (folder / name).unlink(missing_ok=True)
