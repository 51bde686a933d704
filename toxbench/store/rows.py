"""The table's rows as stored next to the cells: ids, targets and groups, but no comment."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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
from toxbench.util.arrays import Codes, Targets, known_targets
from toxbench.util.atomic import write_atomically

FILE = "rows.safetensors"


@dataclass(frozen=True, eq=False)
class StoredRows:
    """The table without its texts, in the table's order.

    Attributes:
        ids: one for each row.
        codes: 0, 1, or `UNLABELLED`, uint8 ``[row, label]``.
        groups: group number of each row (see `row_groups`), int64 ``[row]``.
        is_grouped: whether the table's group column has a value for a row, bool ``[row]``.
    """

    ids: Sequence[str]
    codes: Codes
    groups: npt.NDArray[np.int64]
    is_grouped: npt.NDArray[np.bool_]

    @cached_property
    def targets(self) -> Targets:
        """0/1, uint8 ``[row, label]``; 0 where a row is not labelled."""
        return known_targets(self.codes)


def write_rows(folder: Path, comments: TextDataset) -> None:
    """Write a table's rows into a protocol's folder, unless the same content is stored.

    Groups are not part of the fingerprint, so another ``--group-column`` may change them.

    Raises:
        StorageError: the folder cannot be written.
    """
    data, ends = TextArray.from_texts(comments.ids).flat
    tensors: Tensors = {
        "codes": np.ascontiguousarray(comments.codes, dtype=np.uint8),
        "groups": row_groups(comments),
        "is_grouped": _is_grouped(comments).astype(np.uint8),
        "ids": data,
        "id_ends": ends,
    }
    content, path = encode("rows", StoredRecord().model_dump_json(), tensors), folder / FILE
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
        StoredRecord.from_json(text, path)
        return StoredRows(
            ids=TextArray.from_flat(tensors["ids"], tensors["id_ends"]),
            codes=tensors["codes"],
            groups=tensors["groups"],
            is_grouped=tensors["is_grouped"].astype(bool),
        )


def _is_grouped(comments: TextDataset) -> npt.NDArray[np.bool_]:
    if comments.groups is None:
        return np.zeros(len(comments.targets), dtype=bool)
    return np.array([group is not None for group in comments.groups], dtype=bool)
