"""Checksums of files and texts, and folders of the cache that are named by their content."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from filelock import FileLock

from toxbench.errors import StorageError
from toxbench.util.atomic import make_folder, remove_leftovers, write_atomically, write_error

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")  # never loaded, so neither hashed nor sent
_MODULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


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


def list_files(folder: Path) -> dict[str, Path]:
    """Return name -> path of the files of a checkpoint folder, without pickles and hidden files.

    These are the files directly in it and, as ``1_Pooling/config.json``, those of the modules of
    sentence-transformers.
    """
    folders = [folder, *_module_folders(folder)]
    files = (path for each in folders for path in each.iterdir() if path.is_file())
    listed = (p for p in files if not p.name.startswith(".") and p.suffix not in PICKLES)
    return {path.relative_to(folder).as_posix(): path for path in sorted(listed)}


def hash_files(folder: Path) -> dict[str, str]:
    """Return name -> sha256 of the files of `list_files`; {} if one cannot be read."""
    try:
        return {name: sha256_file(path) for name, path in list_files(folder).items()}
    except OSError:
        return {}


def _module_folders(folder: Path) -> list[Path]:
    """Return the folders that ``modules.json`` of sentence-transformers names."""
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        names = sorted({str(module["path"]) for module in modules})
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [folder / name for name in names if _MODULE.fullmatch(name) and (folder / name).is_dir()]


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
        make_folder((folder / name).parent)
        write_atomically(folder / name, data)
    for name in present.keys() - hashes.keys():
        (folder / name).unlink(missing_ok=True)
