"""Copies the stored results of one protocol from several folders into one folder.

Files are copied byte for byte. A merge that is killed and repeated ends with the same files.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from toxbench.records import PARTS, CellKey
from toxbench.store.cells import QUOTED, SUBSETS, CellStore, stores_below
from toxbench.store.files import FILE as ROWS
from toxbench.store.files import SUFFIX, PartProbabilities
from toxbench.store.manifest import extend_manifest, read_manifest
from toxbench.store.models import CARD, RECORD, check_model, read_model_record
from toxbench.util.atomic import make_folder, write_atomically
from toxbench.util.content import sha256_file

CONFLICTS = "conflicts"  # folder of cells whose key is stored with other probabilities


def merge_stores(sources: Sequence[CellStore], target: CellStore) -> list[str]:
    """Copy the cells, models and failures of one protocol; the caller must hold the target's lock.

    Those on subsets of its train rows are copied, too. Of several cells with the same key, the
    target's own or else that of the first source is stored. One with other probabilities is copied
    to the folder ``conflicts``.

    Returns:
        one message for each cell in conflict.

    Raises:
        StorageError: a file of a source is damaged, or the target cannot be written.
    """
    messages: list[str] = []
    for source in sources:
        # The protocol is last: without it, a folder is no store, and its other files are unused.
        for name in (QUOTED, ROWS, target.protocol_path.name):
            _copy_missing(source.folder / name, target.folder / name)
        extend_manifest(target.folder, read_manifest(source.folder))
        _copy_failures(source, target)
        messages += [line for path in source.paths() for line in _merge_cell(source, path, target)]
        for subset in stores_below(source.folder / SUBSETS):
            merged = CellStore(target.folder / SUBSETS / subset.folder.name)
            with merged.lock():
                messages += merge_stores([subset], merged)
    return messages


def _copy_missing(path: Path, copy: Path) -> None:
    """Copy a file, unless it does not exist or the copy exists."""
    if path.is_file() and not copy.is_file():
        write_atomically(copy, path.read_bytes())


def _copy_failures(source: CellStore, target: CellStore) -> None:
    for record in source.failures.records():
        if not target.path(record.key).is_file():
            _copy_missing(source.failures.path(record.key), target.failures.path(record.key))


def _merge_cell(source: CellStore, path: Path, target: CellStore) -> Iterator[str]:
    """Copy a cell with its model; yield a message if other probabilities are stored for its key."""
    record, probabilities = source.reader.read(path)
    stored = target.path(record.key)
    if stored.is_file() and not _are_equal(target.reader.read(stored)[1], probabilities):
        name = f"{record.key.stem}-{sha256_file(path)[:12]}{SUFFIX}"
        copy = target.folder / CONFLICTS / name
        _copy_missing(path, copy)
        yield f"{path} has other probabilities than {stored}, which stays; copied to {copy}"
        return
    # In the order of a run, so that the same models remain.
    _publish_model(source, record.key, target)
    _copy_missing(path, stored)
    target.failures.remove(record.key)
    target.models.remove_superseded(record.key)


def _publish_model(source: CellStore, key: CellKey, target: CellStore) -> None:
    """Copy the model of a cell, if it has one; a better one of its candidate may replace it."""
    folder, temporary = source.models.path(key), target.models.temporary_path(key)
    if not folder.is_dir() or target.models.path(key).is_dir():
        return
    record = read_model_record(folder)
    check_model(folder, record)
    make_folder(temporary)
    for path in folder.iterdir():
        if path.name != RECORD:  # `publish` writes it
            shutil.copyfile(path, temporary / path.name)
    target.models.publish(record, lambda: (folder / CARD).read_text(encoding="utf-8"))


def _are_equal(first: PartProbabilities, second: PartProbabilities) -> bool:
    return all(np.array_equal(first[part], second[part]) for part in PARTS)
