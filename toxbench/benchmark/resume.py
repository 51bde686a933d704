"""Checks that stored results belong to the table and split of this run."""

from pathlib import Path

from toxbench.data.load import read_part_files
from toxbench.data.protocol import Protocol
from toxbench.data.samples import sample_comments
from toxbench.data.table import TextDataset, read_comments
from toxbench.errors import DataError, SettingsError, StorageError
from toxbench.settings import ColumnSettings, SplitSettings
from toxbench.store.cells import CellStore, ProtocolRecord, other_protocols
from toxbench.util.table_source import TableSource


def check_resumable(results: Path, store: CellStore, protocol: Protocol) -> None:
    """Check that results of this protocol are stored below ``results``, for ``--resume``.

    Raises:
        DataError: all stored results are of another table, or of another split of this table.
        StorageError: no results are stored, or none can be read.
    """
    if store.protocol_path.is_file():
        return
    others = other_protocols(results, store)
    if not others:
        raise StorageError(
            f"{results} contains no results to resume; leave out --resume to start a new run"
        )
    nearest, record = min(others, key=lambda other: _distance(other[1], protocol))
    folder, remedy = nearest.folder, f"leave out --resume to start a new run in {store.folder}"
    if record.data_fingerprint != protocol.data_fingerprint:
        raise DataError(
            f"--resume: the table changed or is a different one: {_describe(record)} in {folder}, "
            f"{_describe(protocol)} in this run; use the table and column options of that run, or "
            f"{remedy}"
        )
    raise DataError(
        f"--resume: the table is the same, but the split differs: protocol "
        f"{_short(record.fingerprint)} in {folder}, {_short(protocol.fingerprint)} in this run; "
        f"use the split options of that run, or {remedy}"
    )


def other_table_warning(results: Path, store: CellStore, protocol: Protocol) -> list[str]:
    """Return a warning if the results of a table of the same name are of other data, else []."""
    name, data = protocol.comments.name, protocol.data_fingerprint
    for other, record in other_protocols(results, store):
        if record.name == name and record.data_fingerprint != data:
            return [
                f"{name} differs from the table of that name in {other.folder} (ids, texts or "
                f"labels): data {_short(data)} in this run, {_short(record.data_fingerprint)} in "
                f"that one; this run writes to its own folder, {store.folder}"
            ]
    return []


def read_matching_table(
    record: ProtocolRecord, data: TableSource | None, columns: ColumnSettings, split: SplitSettings
) -> TextDataset:
    """Read the table of stored results, and check that it has not changed.

    Args:
        record: of the results.
        data: its source; None for the synthetic sample.
        columns: as in the run.
        split: whose ``valid`` and ``test`` are files of further rows.

    Raises:
        DataError: as `read_comments`, or the table is not that of the results.
        SettingsError: no file is given, and the results are not of the sample.
    """
    if data is None and not record.synthetic:
        raise SettingsError("comments are not stored with results; add --data FILE")
    if data is None:
        comments = sample_comments()
    elif split.test is None:
        comments = read_comments(data, columns)
    else:  # only the rows and their order matter, so no validation rows are drawn
        parts = split.model_copy(update={"validation_size": 0.0})
        comments = read_part_files(data, columns, parts).comments
    protocol = Protocol(comments, ())
    if protocol.data_fingerprint != record.data_fingerprint:
        raise DataError(
            "this is not the table of these results, or it has changed since: expected "
            f"{_describe(record)}, but read {_describe(protocol)}; give the table of the run, with "
            "the same column options, --valid and --test"
        )
    return comments


def _distance(record: ProtocolRecord, protocol: Protocol) -> tuple[bool, bool]:
    """Return whether the data and the name differ: the same data are nearer than the same name."""
    return (
        record.data_fingerprint != protocol.data_fingerprint,
        record.name != protocol.comments.name,
    )


def _describe(protocol: ProtocolRecord | Protocol) -> str:
    """Describe a table: its name, numbers of rows and labels, and hash."""
    table = protocol if isinstance(protocol, ProtocolRecord) else protocol.comments
    rows = table.rows if isinstance(table, ProtocolRecord) else len(table)
    return (
        f"{table.name!r} with {rows} rows, {len(table.labels)} labels and data "
        f"{_short(protocol.data_fingerprint)}"
    )


def _short(fingerprint: str) -> str:
    return fingerprint[:12]
