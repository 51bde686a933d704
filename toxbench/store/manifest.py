"""Which code may have had a hand in the results of a protocol. No path and no user's name."""

from pathlib import Path

from pydantic import Field, ValidationError

from toxbench.errors import StorageError
from toxbench.records import StoredRecord
from toxbench.settings import FrozenModel
from toxbench.store.lock import locked
from toxbench.util.atomic import make_folder, write_atomically
from toxbench.util.redact import redact

FILE = "manifest.json"


class LoadedPlugin(FrozenModel):
    """A plugin whose code has run, and where it came from."""

    name: str = Field(description="of the entry point")
    distribution: str = Field(description="name and version")


class Code(FrozenModel):
    """What one or several runs ran."""

    plugins: tuple[LoadedPlugin, ...]
    versions: dict[str, str] = Field(description="of Python and the main packages")


class Manifest(StoredRecord):
    """Every different code that ran on a protocol, in the order in which it first did."""

    runs: tuple[Code, ...] = ()
    commands: tuple[str, ...] = Field((), description="that asked for it, without folders")


def note_code(folder: Path, code: Code, command: str) -> None:
    """Add what is about to run to a protocol's manifest, unless the same is there.

    Args:
        folder: of the protocol.
        code: that runs.
        command: that asked for it.

    Raises:
        StorageError: the folder cannot be written, or the manifest is damaged.
    """
    make_folder(folder)
    with locked(folder / ".manifest.lock"):  # several searches may begin at once
        noted = read_manifest(folder)
        runs = noted.runs if code in noted.runs else (*noted.runs, code)
        commands = tuple(dict.fromkeys((*noted.commands, redact(command))))
        added = Manifest(runs=runs, commands=commands)
        if added != noted:
            write_atomically(folder / FILE, added.model_dump_json(indent=1).encode("utf-8"))


def read_manifest(folder: Path) -> Manifest:
    """Read a protocol's manifest; it is empty where none was written.

    Raises:
        StorageError: it cannot be read, or a newer toxbench wrote it.
    """
    path = folder / FILE
    try:
        return Manifest.from_json(path.read_bytes(), path)
    except FileNotFoundError:
        return Manifest()
    except (OSError, ValidationError) as error:
        raise StorageError(
            f"{path} is damaged; move it away and run the same command again"
        ) from error
