"""Tuned settings on the disk: ``tuned.toml``, for people to read and for runs to use."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toxbench.atomic import write_atomically
from toxbench.errors import StorageError
from toxbench.records import TunedSettings
from toxbench.store.upkeep import DamagedError

FILE = "tuned.toml"
TUNING = "tuning"  # folder of a protocol's studies, below the protocol's own


def write_tuned(
    path: Path, tuned: TunedSettings, remarks: Sequence[str], origins: Mapping[str, str]
) -> None:
    """Write settings with where they came from.

    Args:
        path: of the file.
        tuned: what was found.
        remarks: lines of comment at the top.
        origins: training setting -> comment behind it.

    Raises:
        StorageError: the folder cannot be written.
    """
    lines = [f"# {_one_line(remark)}" for remark in remarks]
    content = tuned.model_dump(mode="json")
    tables = {name: value for name, value in content.items() if isinstance(value, dict)}
    lines += [f"{name} = {_toml(value)}" for name, value in content.items() if name not in tables]
    for table, values in tables.items():
        lines += ["", f"[{table}]", *_rows(values, origins if table == "train" else {})]
    write_atomically(path, ("\n".join(lines) + "\n").encode("utf-8", "replace"))


def read_tuned(path: Path) -> TunedSettings:
    """Read what `write_tuned` wrote.

    Raises:
        DamagedError: the file makes no sense.
        StorageError: it cannot be read, or a newer toxbench wrote it.
    """
    try:
        return TunedSettings.take(tomllib.loads(path.read_text(encoding="utf-8")), path)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(
            f"{path} is damaged; the same toxbench tune again moves it aside and writes it"
        ) from error


def find_tuned(folder: Path, protocol: str, backbone: str, weights: str) -> TunedSettings | None:
    """Return the latest settings found for a backbone with these weights, or None.

    Args:
        folder: of the protocol.
        protocol: its fingerprint; settings found on other rows are of no use.
        backbone: its name.
        weights: identity of what it starts from; settings for other weights are of no use.

    Raises:
        StorageError: a file is damaged.
    """
    found = map(read_tuned, sorted((folder / TUNING).glob(f"*/{FILE}")))
    wanted = (protocol, backbone, weights)
    fitting = [t for t in found if (t.protocol, t.backbone, t.weights.identity) == wanted]
    return max(fitting, key=lambda tuned: tuned.finished, default=None)


def _rows(values: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[str]:
    for name, value in values.items():
        if value is not None:  # TOML has no null: what is unset is left out
            origin = f"  # {_one_line(origins[name])}" if name in origins else ""
            yield f"{_key(name)} = {_toml(value)}{origin}"


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalpha() else json.dumps(name)


def _toml(value: object) -> str:
    """Write a string, number, bool or list; for these TOML is JSON, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    """Keep a comment from ending early."""
    return "".join(c if c.isprintable() else " " for c in text)
