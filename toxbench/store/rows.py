"""The table's rows as stored next to the cells: ids, targets and groups, but no comment."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toxbench.data.groups import row_groups
from toxbench.data.table import TextDataset
from toxbench.data.text_array import TextArray
from toxbench.errors import StorageError
from toxbench.records import StoredRecord
from toxbench.store.repair import read_errors
from toxbench.store.tensor_file import Tensors, decode, encode
from toxbench.util.arrays import Targets
from toxbench.util.atomic import write_atomically

FILE = "rows.safetensors"


class RowsRecord(StoredRecord):
    """The text of the file."""

    has_groups: bool


@dataclass(frozen=True, eq=False)
class StoredRows:
    """The table without its texts, in the table's order.

    Attributes:
        ids: one for each row.
        targets: 0/1, uint8 ``[row, label]``.
        groups: group number of each row (see `row_groups`), int64 ``[row]``.
        has_groups: whether the table has a column of groups; if not, rows with equal texts are a
            group.
    """

    ids: Sequence[str]
    targets: Targets
    groups: npt.NDArray[np.int64]
    has_groups: bool


def write_rows(folder: Path, comments: TextDataset) -> None:
    """Write a table's rows into a protocol's folder, unless the same content is stored.

    Groups are not part of the fingerprint, so another ``--group-column`` may change them.

    Raises:
        StorageError: the folder cannot be written.
    """
    data, ends = TextArray.from_texts(comments.ids).flat
    tensors: Tensors = {
        "targets": np.ascontiguousarray(comments.targets, dtype=np.uint8),
        "groups": row_groups(comments),
        "ids": data,
        "id_ends": ends,
    }
    record = RowsRecord(has_groups=comments.groups is not None)
    content, path = encode("rows", record.model_dump_json(), tensors), folder / FILE
    try:
        is_stored = path.read_bytes() == content
    except OSError:  # missing or unreadable: write it
        is_stored = False
    if not is_stored:
        write_atomically(path, content)


def read_rows(folder: Path) -> StoredRows:
    """Read a table's rows from a protocol's folder.

    Raises:
        DamagedError: the file is damaged.
        StorageError: the file is missing, cannot be read, or was written by a newer toxbench.
    """
    path = folder / FILE
    remedy = "the same toxbench run again moves it aside and writes it, without training"
    with read_errors(path, remedy):
        if not path.exists():
            raise StorageError(
                f"{path} is missing; the same toxbench run again writes it, without training"
            )
        text, tensors = decode("rows", path.read_bytes())
        record = RowsRecord.from_json(text, path)
        return StoredRows(
            ids=TextArray.from_flat(tensors["ids"], tensors["id_ends"]),
            targets=tensors["targets"],
            groups=tensors["groups"],
            has_groups=record.has_groups,
        )
