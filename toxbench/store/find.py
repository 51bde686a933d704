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
    stores = [CellStore(path), *stores_below(path)]
    found = next((store for store in stores if store.protocol_path.is_file()), None)
    if found is None:
        raise StorageError(f"{path} holds no results yet; start with: toxbench run")
    return found


def stores_below(results: Path) -> list[CellStore]:
    """Return the stores in the folders of a folder, the one that changed last first."""
    below = sorted(results.glob("*/protocol.json"), key=_changed, reverse=True)
    return [CellStore(protocol.parent) for protocol in below]


def _changed(protocol: Path) -> float:
    """When the leaderboard beside it was written, or else the protocol itself."""
    written = protocol.with_name("leaderboard.json")
    return (written if written.is_file() else protocol).stat().st_mtime
