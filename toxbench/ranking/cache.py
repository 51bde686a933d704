"""The finished leaderboard, kept in the protocol's folder until anything it was made of changes.

It can always be made again from the cells, so nobody has to keep, copy or repair it: a file that
is missing, damaged or of other cells or other code is passed over, and the next print writes a new
one. It is found by a digest over the bytes of every file that a leaderboard reads, so it never
hides that a cell was changed, damaged, added or removed.
"""

import hashlib
import json
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter

from toxbench.errors import StorageError
from toxbench.ranking.rows import Leaderboard
from toxbench.store.cells import CellStore
from toxbench.store.rows import FILE as ROWS
from toxbench.util.atomic import write_atomically
from toxbench.util.hashing import sha256_file

FILE = ".leaderboard.cache"
_PACKAGES = ("numpy", "scipy", "pydantic")  # that compute the numbers, or write them


def made_of(store: CellStore, rule: str, metric: str) -> str | None:
    """Return a digest of everything that a leaderboard is made of: the files and the code.

    Args:
        store: of the protocol.
        rule: of the thresholds.
        metric: that ranks.

    Returns:
        64 hex digits; None where a file cannot be read, or the code is not there as files.
    """
    try:
        content = {
            "protocol": sha256_file(store.protocol_path),
            "rows": sha256_file(store.folder / ROWS),
            "cells": [(path.name, sha256_file(path)) for path in store.paths()],
            "failures": [(path.name, sha256_file(path)) for path in store.failures.paths()],
            "rule": rule,
            "metric": metric,
            "code": _code(),
        }
    except OSError:  # making the leaderboard says which file it is, and what to do
        return None
    return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()


def read_kept(folder: Path, digest: str) -> Leaderboard | None:
    """Return the leaderboard that was kept under a digest; None: there is none, or no whole one."""
    try:
        made, checksum, content = (folder / FILE).read_bytes().split(b"\n", 2)
        if (made, checksum) != (digest.encode("ascii"), _checksum(content)):
            return None
        (leaderboard,) = _adapter().validate_json(content)
    except (OSError, ValueError):  # not kept yet, or damaged: it will be made anew
        return None
    return leaderboard


def keep(folder: Path, digest: str, leaderboard: Leaderboard) -> None:
    """Keep a finished leaderboard, in place of the one that was kept before.

    Args:
        folder: of the protocol.
        digest: what it was made of.
        leaderboard: the whole of it; every number is read again as it is, to the last bit.
    """
    if folder.is_symlink():  # whoever reads through a link did not ask to write through it
        return
    content = _adapter().dump_json((leaderboard,))
    data = b"\n".join([digest.encode("ascii"), _checksum(content), content])
    try:
        write_atomically(folder / FILE, data)
    except StorageError:
        # A folder that is only for reading, or a full disk, can be printed all the same: what is
        # lost is the time of the next print. Cells and tables are written elsewhere, and loudly.
        return


def _adapter() -> TypeAdapter[tuple[Leaderboard]]:
    # JSON, so that nothing in the file can run; a tuple of one, because pydantic takes no settings
    # for a dataclass itself. NaN and infinity are written as such, not as null.
    return TypeAdapter(tuple[Leaderboard], config=ConfigDict(ser_json_inf_nan="constants"))


def _code() -> list[tuple[str, str]]:
    """Return what computes: all of toxbench's sources, and the versions of what they call.

    All, because nobody would remember which modules a number depends on, or to raise a version.

    Raises:
        OSError: a source cannot be read, or there are none.
    """
    package = Path(__file__).resolve().parents[1]
    sources = sorted(package.rglob("*.py"))
    if not sources:  # installed as a zip file, say: a change could not be noticed
        raise FileNotFoundError(package)
    installed = [(name, version(name)) for name in _PACKAGES]
    return [("python", sys.version), *installed, *_digests(sources, package)]


def _digests(paths: Iterable[Path], folder: Path) -> list[tuple[str, str]]:
    return [(path.relative_to(folder).as_posix(), sha256_file(path)) for path in paths]


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode("ascii")
