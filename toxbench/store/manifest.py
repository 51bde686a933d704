"""The code that contributed to the results of a protocol, without paths or user names."""

from contextlib import suppress
from pathlib import Path

from pydantic import Field

from toxbench.records import StoredRecord
from toxbench.settings import FrozenModel
from toxbench.store.folder import hold_lock, read_errors
from toxbench.util.atomic import make_folder, write_atomically
from toxbench.util.text import redact

FILE = "manifest.json"


class LoadedPlugin(FrozenModel):
    """A plugin whose code was run, and its distribution."""

    name: str = Field(description="of the entry point")
    distribution: str = Field(description="name and version")


class CodeVersions(FrozenModel):
    """The plugins and package versions of one or more runs."""

    plugins: tuple[LoadedPlugin, ...]
    versions: dict[str, str] = Field(description="of Python and the main packages")


class Manifest(StoredRecord):
    """All distinct code versions that were run on a protocol, in order of their first run."""

    runs: tuple[CodeVersions, ...] = ()
    commands: tuple[str, ...] = Field((), description="that started the runs, without folders")


def record_code(folder: Path, code: CodeVersions, command: str) -> None:
    """Add the code of a run to a protocol's manifest, unless the manifest contains it.

    Raises:
        StorageError: the folder cannot be written, or the manifest is damaged.
    """
    extend_manifest(folder, Manifest(runs=(code,), commands=(redact(command),)))


def extend_manifest(folder: Path, addition: Manifest) -> None:
    """Add the runs and commands that a protocol's manifest does not contain.

    Raises:
        StorageError: the folder cannot be written, or the manifest is damaged.
    """
    make_folder(folder)
    with hold_lock(folder / ".manifest.lock"):  # several searches may start at once
        stored = read_manifest(folder)
        runs = (*stored.runs, *(run for run in addition.runs if run not in stored.runs))
        commands = tuple(dict.fromkeys((*stored.commands, *addition.commands)))
        manifest = Manifest(runs=runs, commands=commands)
        if manifest != stored:
            write_atomically(folder / FILE, manifest.model_dump_json(indent=1).encode("utf-8"))


def read_manifest(folder: Path) -> Manifest:
    """Read a protocol's manifest; it is empty if the file does not exist.

    Raises:
        StorageError: it cannot be read, or a newer toxbench wrote it.
    """
    path = folder / FILE
    remedy = "move it away and run the same command again"
    with read_errors(path, remedy), suppress(FileNotFoundError):
        return Manifest.from_json(path.read_bytes(), path)
    return Manifest()
