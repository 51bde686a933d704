"""What the last ``toxbench tune`` was asked, so that ``--resume`` needs no other word."""

import json
from pathlib import Path
from typing import Any

from toxbench.atomic import write_atomically
from toxbench.errors import SettingsError, StorageError
from toxbench.settings import SPLIT_FILES, RunSettings
from toxbench.tuning.storage import absolute_url, has_password

_FILE = ".last-tune.json"


def write_request(settings: RunSettings) -> None:
    """Note settings in the results folder, for this machine: the tables' paths are absolute.

    A storage URL that holds a password is not written down.

    Raises:
        StorageError: the folder cannot be written.
    """
    request = settings.model_dump(mode="json", exclude_unset=True, exclude={"results", "resume"})
    if settings.data is not None:
        request["data"] = str(settings.data.resolve())
    if "split" in request:
        request["split"] = {
            name: str(Path(value).resolve()) if name in SPLIT_FILES and value else value
            for name, value in request["split"].items()
        }
    request["weights"] = [_absolute(source) for source in settings.weights]
    storage = request.get("tune", {}).get("storage")
    if storage is not None and has_password(storage):
        request["tune"] = {k: v for k, v in request["tune"].items() if k != "storage"}
        request["storage_had_password"] = True
    elif storage is not None:
        request["tune"] |= {"storage": absolute_url(storage)}
    text = json.dumps(request, indent=2)
    write_atomically(settings.results / _FILE, text.encode("utf-8"))


def read_request(results: Path, storage: str | None) -> dict[str, Any]:
    """Return what the last search in a results folder was asked, as a config file would hold it.

    Args:
        results: the folder.
        storage: as given now.

    Raises:
        StorageError: there was none, or the file is damaged.
        SettingsError: the storage has to be named again, for its password is not kept.
    """
    path = results / _FILE
    if not path.is_file():
        raise StorageError(f"{results} holds no search to resume; start with: toxbench tune")
    try:
        request: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        had_password = {**request}.get("storage_had_password", False)
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(f"{path} is damaged; give toxbench tune its options again") from error
    request = {name: value for name, value in request.items() if name != "storage_had_password"}
    if had_password and storage is None:
        raise SettingsError("--resume: give --storage again; its password was not written down")
    return request


def _absolute(source: str) -> str:
    """Make the folder in ``NAME=FOLDER`` independent of where toxbench is called."""
    name, equals, path = source.partition("=")
    return f"{name}={Path(path).resolve()}" if equals else source
