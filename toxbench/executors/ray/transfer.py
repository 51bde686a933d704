"""Copies of folders on other machines, identified by the hashes of their files."""

from collections.abc import Mapping
from pathlib import Path

from toxbench.errors import StorageError
from toxbench.util.atomic import write_error
from toxbench.util.content import content_name, hash_files


def find_folder(folder: Path, hashes: Mapping[str, str], cache: Path) -> Path | None:
    """Return a folder of this machine with exactly these files; None if there is none.

    Args:
        folder: its path on the main machine, which may be shared with this one.
        hashes: name -> sha256.
        cache: holds the folders that were sent earlier.
    """
    candidates = (folder, cache / content_name(hashes))
    return next((path for path in candidates if hash_files(path) == hashes), None)


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
