"""Finding stored results again."""

from pathlib import Path

from toxbench.errors import SettingsError, StorageError
from toxbench.settings import possible_path
from toxbench.store.cells import CellStore


def find_store(path: Path) -> CellStore:
    """Return the store in a folder: the folder itself, or the one below it that changed last.

    Raises:
        SettingsError: no folder could be called that.
        StorageError: there is none.
    """
    try:
        possible_path(path)
    except ValueError as error:
        raise SettingsError(f"no folder of results: {error}") from error
    below = sorted(path.glob("*/protocol.json"), key=_changed, reverse=True)
    folders = [path, *(protocol.parent for protocol in below)]
    found = next((f for f in map(CellStore, folders) if f.protocol_path.is_file()), None)
    if found is None:
        raise StorageError(f"{path} holds no results yet; start with: toxbench run")
    return found


def _changed(protocol: Path) -> float:
    """When the leaderboard beside it was written, or else the protocol itself."""
    written = protocol.with_name("leaderboard.json")
    return (written if written.is_file() else protocol).stat().st_mtime
