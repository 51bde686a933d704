"""What holds of a results folder before it is written: no links, no damage, and room to write."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from toxbench.errors import StorageError
from toxbench.util.atomic import TEMPORARY_SUFFIX, make_folder, write_error


class DamagedError(StorageError):
    """A file does not hold what was written."""


def reject_symlinks(folder: Path) -> None:
    """Refuse a folder that is a symbolic link or holds one: what is written would land elsewhere.

    Raises:
        StorageError: naming the link.
    """
    below = (Path(parent, n) for parent, dirs, files in os.walk(folder) for n in (*dirs, *files))
    for path in (folder, *below):
        if path.is_symlink():
            raise StorageError(
                f"{path} is a symbolic link, and nothing is written through links below a results "
                "folder; put what it points to in its place, or use another --results"
            )


def check_writable(folder: Path) -> None:
    """Make a folder where it is not there, and try whether files can be made in it.

    Raises:
        StorageError: they cannot.
    """
    make_folder(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise write_error(folder, error) from error


def remove_partial_files(folder: Path) -> None:
    """Remove what a killed process was writing; no other process may be writing there now."""
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def quarantine_damaged(
    paths: Iterable[Path], read: Callable[[Path], object], then: str
) -> Iterator[str]:
    """Rename each damaged file to ``<name>.corrupt``: it is evidence, so it is not deleted.

    Args:
        paths: of the files.
        read: raises `DamagedError` where a file does not hold what was written.
        then: what happens instead, in words.

    Yields:
        one line for each file that was renamed.

    Raises:
        StorageError: a file cannot be read or renamed, or a newer toxbench wrote it.
    """
    for path in filter(Path.is_file, paths):
        try:
            read(path)
        except DamagedError:
            yield f"{path} was damaged and is now {quarantine(path).name}; {then}"


def quarantine(path: Path) -> Path:
    """Rename a file or folder to ``<name>.corrupt`` and return its new path.

    Raises:
        StorageError: it cannot be renamed.
    """
    names = (f"{path.name}.corrupt{f'-{n}' if n > 1 else ''}" for n in itertools.count(1))
    aside = next(p for name in names if not os.path.lexists(p := path.with_name(name)))
    try:
        os.replace(path, aside)
    except OSError as error:
        raise StorageError(f"cannot move {path} aside: {error.strerror}") from error
    return aside
