"""Whether stored results are of the table that is here now."""

from pathlib import Path

from toxbench.data.load import read_part_files
from toxbench.data.protocol import Protocol
from toxbench.data.synthetic import sample_comments
from toxbench.data.table import TextDataset, read_comments
from toxbench.errors import DataError, SettingsError, StorageError
from toxbench.settings import ColumnSettings, SplitSettings
from toxbench.store.cells import CellStore, ProtocolRecord, stores_below


def check_resumable(results: Path, store: CellStore, protocol: Protocol) -> None:
    """Refuse to start anew where stored results were to be gone on with.

    Args:
        results: the folder of all results.
        store: where the results of ``protocol`` are, if there are some.
        protocol: of this run.

    Raises:
        DataError: all that is stored is of another table, or of another split of this one.
        StorageError: nothing is stored, or nothing that can be read.
    """
    if store.protocol_path.is_file():
        return
    others = _others(results, store)
    if not others:
        raise StorageError(f"{results} holds no results to resume; leave out --resume to start")
    near = min(others, key=lambda other: _distance(other[1], protocol))
    anew = f"leave out --resume to start anew in {store.folder}"
    folder, record = near[0].folder, near[1]
    if record.data_fingerprint != protocol.data_fingerprint:
        raise DataError(
            f"--resume: the table has changed or is another: {_table(record)} in {folder}, "
            f"{_table(protocol)} here; give the table and column options of that run, or {anew}"
        )
    raise DataError(
        "--resume: the table is the same, but the split is another: protocol "
        f"{_short(record.fingerprint)} in {folder}, {_short(protocol.fingerprint)} here; give the "
        f"split's options of that run, or {anew}"
    )


def other_table_warning(results: Path, store: CellStore, protocol: Protocol) -> list[str]:
    """Say in one line that a table of the same name has results, but with other data."""
    name, data = protocol.comments.name, protocol.data_fingerprint
    found = [
        (other, record)
        for other, record in _others(results, store)
        if record.name == name and record.data_fingerprint != data
    ]
    if not found:
        return []
    other, record = found[0]
    return [
        f"this is another table than the {name} of {other.folder} (ids, texts or labels differ): "
        f"data {_short(data)} here, {_short(record.data_fingerprint)} there; this run gets its own "
        f"folder, {store.folder}"
    ]


def read_table_of(
    record: ProtocolRecord, data: Path | None, columns: ColumnSettings, split: SplitSettings
) -> TextDataset:
    """Read the table that stored results are of, and no other.

    Args:
        record: of the results.
        data: its file; None for the synthetic sample.
        columns: as in the run.
        split: whose ``valid`` and ``test`` are files of further rows.

    Raises:
        DataError: as `read_comments`; it is another table, or has changed since.
        SettingsError: there is no file, and the results are not of the sample.
    """
    if data is None and not record.synthetic:
        raise SettingsError("comments are not stored with results; add --data FILE")
    if data is None:
        comments = sample_comments()
    elif split.test is None:
        comments = read_comments(data, columns)
    else:  # only the rows and their order matter here, so no validation rows are drawn
        parts = split.model_copy(update={"validation_size": 0.0})
        comments = read_part_files(data, columns, parts).comments
    here = Protocol(comments, ())
    if here.data_fingerprint != record.data_fingerprint:
        raise DataError(
            f"this is not the table of these results, or it has changed since: {_table(here)} "
            f"here, {_table(record)} there; name that one, with the column options, --valid and "
            "--test that it was run with"
        )
    return comments


def _others(results: Path, store: CellStore) -> list[tuple[CellStore, ProtocolRecord]]:
    """Read what else is stored, newest first; what cannot be read stands in no run's way."""
    found: list[tuple[CellStore, ProtocolRecord]] = []
    for other in stores_below(results):
        if other.folder != store.folder:
            try:
                found.append((other, other.protocol()))
            except StorageError:
                continue
    return found


def _distance(record: ProtocolRecord, protocol: Protocol) -> tuple[bool, bool]:
    """Order by what is the same: the data first, then the name."""
    return (
        record.data_fingerprint != protocol.data_fingerprint,
        record.name != protocol.comments.name,
    )


def _table(of: ProtocolRecord | Protocol) -> str:
    """Name a table with what tells it from others."""
    table = of if isinstance(of, ProtocolRecord) else of.comments
    rows = table.rows if isinstance(table, ProtocolRecord) else len(table)
    return (
        f"{table.name!r} with {rows} rows, {len(table.labels)} labels and data "
        f"{_short(of.data_fingerprint)}"
    )


def _short(fingerprint: str) -> str:
    return fingerprint[:12]
