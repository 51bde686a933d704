"""What is kept of the table beside the cells: ids, targets and groups, and no comment."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toxbench.data.groups import row_groups
from toxbench.data.table import TextDataset
from toxbench.data.text_array import TextArray
from toxbench.errors import StorageError
from toxbench.records import refuse_newer
from toxbench.store.repair import DamagedError
from toxbench.store.tensor_file import Tensors, decode, encode
from toxbench.util.arrays import Targets
from toxbench.util.atomic import write_atomically

FILE = "rows.safetensors"
_VERSION = 2  # 1 had its ids in the header, where two million of them are too many


@dataclass(frozen=True, eq=False)
class StoredRows:
    """The table without its texts, in its order.

    Attributes:
        ids: of the rows.
        targets: 0/1, uint8 ``[row, label]``.
        groups: rows that belong together, as numbers, int64 ``[row]``: `row_groups`.
        has_groups: the table names groups; without, only equal texts belong together.
    """

    ids: Sequence[str]
    targets: Targets
    groups: npt.NDArray[np.int64]
    has_groups: bool


def write_rows(folder: Path, comments: TextDataset) -> None:
    """Write what is kept of a table into a protocol's folder, unless the same is there.

    Groups are none of the fingerprint's business, so another ``--group-column`` may change them.

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
    text = json.dumps({"schema_version": _VERSION, "has_groups": comments.groups is not None})
    content, path = encode("rows", text, tensors), folder / FILE
    try:
        is_there = path.read_bytes() == content
    except OSError:  # not there yet, or not for us to read: to be written in any case
        is_there = False
    if not is_there:
        write_atomically(path, content)


def read_rows(folder: Path) -> StoredRows:
    """Read what is kept of a table.

    Raises:
        DamagedError: it is not as it was written.
        StorageError: it is missing or cannot be read, or a newer toxbench wrote it.
    """
    path = folder / FILE
    try:
        text, tensors = decode("rows", path.read_bytes())
        known = json.loads(text)
        refuse_newer(known, path, _VERSION)
        return StoredRows(
            _ids(known, tensors), tensors["targets"], tensors["groups"], known["has_groups"]
        )
    except FileNotFoundError as error:
        raise StorageError(
            f"{path} is missing; the same toxbench run again writes it, without training"
        ) from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DamagedError(
            f"{path} is damaged; the same toxbench run again moves it aside and writes it, without "
            "training"
        ) from error


def _ids(known: dict[str, Any], tensors: Tensors) -> Sequence[str]:
    if "ids" in known:  # version 1
        return tuple(known["ids"])
    return TextArray.from_flat(tensors["ids"], tensors["id_ends"])
