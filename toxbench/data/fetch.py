"""Download of the YouTube toxicity table through kagglehub."""

from pathlib import Path

from toxbench.data.table import TextDataset, read_comments
from toxbench.errors import DataError, SettingsError, TryAgainError
from toxbench.util.content import sha256_file

HANDLE = "reihanenamdari/youtube-toxicity-data"
KNOWN_SHA256 = "a2408d78f4c8380a8acbc1b1a13b8f4d22868a74fa03c07a38ab00375b876eab"


def fetch() -> tuple[Path, TextDataset, bool]:
    """Download the table, or find it in kagglehub's cache, and validate it.

    Returns:
        the CSV file, the table, and whether it is the version that toxbench was measured on.

    Raises:
        SettingsError: the extra ``data`` is not installed.
        TryAgainError: Kaggle did not answer or refused.
        DataError: the download is not that table.
    """
    try:
        import kagglehub
    except ImportError as error:
        raise SettingsError(
            'kagglehub is not installed; install it with: pip install "toxbench[data]"'
        ) from error
    try:
        folder = Path(kagglehub.dataset_download(HANDLE))
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TryAgainError(
            f"Kaggle did not deliver {HANDLE}: {reason}; try again, or download it in a browser "
            "and use --data FILE"
        ) from error
    tables = sorted(folder.rglob("*.csv"))
    if len(tables) != 1:
        raise DataError(f"{folder} contains {len(tables)} CSV files, expected one")
    return tables[0], read_comments(tables[0]), sha256_file(tables[0]) == KNOWN_SHA256
