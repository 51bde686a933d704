"""What the last ``toxbench tune`` was asked, so that ``--resume`` needs no other word."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from toxbench.atomic import write_atomically
from toxbench.errors import SettingsError, StorageError
from toxbench.settings import SPLIT_FILES, RunSettings
from toxbench.store.private import from_portable, portable
from toxbench.tuning.storage import is_private, with_file

_FILE = ".last-tune.json"


def write_request(settings: RunSettings) -> None:
    """Note settings in the results folder, for this machine.

    Paths begin at the home folder or at the results, so that they hold wherever toxbench is
    called, and nobody's name is in them. A storage URL with a password or a name is not written.

    Raises:
        StorageError: the folder cannot be written.
    """
    request = settings.model_dump(mode="json", exclude_unset=True, exclude={"results", "resume"})
    request["weights"] = list(settings.weights)
    storage = request.get("tune", {}).get("storage")
    if storage is not None and is_private(storage):
        request["tune"] = {k: v for k, v in request["tune"].items() if k != "storage"}
        request["storage_had_password"] = True
    request = _with_paths(request, lambda path: portable(path, settings.results))
    text = json.dumps(request, indent=2)
    write_atomically(settings.results / _FILE, text.encode("utf-8"))


def read_request(results: Path, storage: str | None) -> dict[str, Any]:
    """Return what the last search in a results folder was asked, as a config file would hold it.

    Args:
        results: the folder.
        storage: as given now.

    Raises:
        StorageError: there was none, or the file is damaged.
        SettingsError: the storage has to be named again, for it was not kept.
    """
    path = results / _FILE
    if not path.is_file():
        raise StorageError(f"{results} holds no search to resume; start with: toxbench tune")
    try:
        request: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        had_password = request.pop("storage_had_password", False)
        request = _with_paths(request, lambda kept: from_portable(kept, results))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StorageError(f"{path} is damaged; give toxbench tune its options again") from error
    if had_password and storage is None:
        raise SettingsError(
            "--resume: give --storage again; the password or the name in it was not written down"
        )
    return request


def _with_paths(request: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Change every path of a request."""
    changed = dict(request)
    if changed.get("data"):
        changed["data"] = change(changed["data"])
    if "split" in changed:
        changed["split"] = {
            name: change(value) if name in SPLIT_FILES and value else value
            for name, value in changed["split"].items()
        }
    sources = [source for joined in changed.get("weights", []) for source in joined.split(",")]
    changed["weights"] = [_with_folder(source.strip(), change) for source in sources]
    tune = changed.get("tune", {})
    if "storage" in tune:
        changed["tune"] = tune | {"storage": with_file(tune["storage"], change)}
    return changed


def _with_folder(source: str, change: Callable[[str], str]) -> str:
    """Change the folder in ``NAME=FOLDER``."""
    name, equals, path = source.partition("=")
    return f"{name}={change(path)}" if equals else source
