"""``toxbench leaderboard --watch``: the leaderboard again and again, while a run goes on."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from toxbench.cli.output import clear, say, terminal_width
from toxbench.errors import StorageError

if TYPE_CHECKING:
    from toxbench.store.cells import CellStore

_State = tuple[tuple[str, int, int], ...]  # name, time and size of each file that changes


@dataclass(frozen=True)
class _Seen:
    """What there is to show at one moment."""

    stores: tuple["CellStore", ...]
    state: _State
    is_running: bool
    status: str


def watch(
    folders: Sequence[Path], seconds: float, show: Callable[[Sequence["CellStore"]], None]
) -> None:
    """Show a leaderboard whenever it changed, until no run writes to it any more.

    Args:
        folders: as `find_store` takes them; where nothing is stored yet, it is waited for.
        seconds: between two looks. No run is kept waiting by them.
        show: prints the leaderboard of some stores.

    Raises:
        StorageError: what is stored cannot be read.
    """
    seen = _first(folders, seconds)
    shown: _State | None = None
    while True:
        if seen.state != shown or terminal_width() is not None:
            clear()
            show(seen.stores)
            say(f"\n{seen.status}")
            shown = seen.state
        if not seen.is_running:
            say("No run is writing there: that is all.")
            return
        time.sleep(seconds)
        seen = _look(seen.stores)


def _first(folders: Sequence[Path], seconds: float) -> _Seen:
    """Wait until there is something to show."""
    waiting = False
    while True:
        stores = tuple(filter(None, map(_store, folders)))
        if len(stores) == len(folders):
            return _look(stores)
        if not waiting:
            names = ", ".join(map(str, folders))
            say(f"Nothing is stored in {names} yet; waiting for a run (Ctrl-C ends)", err=True)
            waiting = True
        time.sleep(seconds)


def _store(folder: Path) -> "CellStore | None":
    """Return what a run is writing to in a folder, else what changed last."""
    from toxbench.store.find import find_store, stores_below

    at_work = [store for store in stores_below(folder) if store.writer is not None]
    if at_work:
        return at_work[0]
    try:
        return find_store(folder)
    except StorageError:
        return None


def _look(stores: tuple["CellStore", ...]) -> _Seen:
    # Who writes first: a run that ends in between has stored all its cells by then.
    writers = [store.writer for store in stores]
    paths = [path for s in stores for path in (*s.paths(), *s.failures.paths())]
    state, last = _state(paths)
    stored = sum(len(store.paths()) for store in stores)
    expected = [writer.cells for writer in writers if writer is not None]
    of = ""
    if len(stores) == 1 and expected and expected[0] is not None:
        of = f" of {expected[0]}"
    when = f"; last change {last:%H:%M:%S}" if last else ""
    failed = sum(len(store.failures.paths()) for store in stores)
    status = f"{stored}{of} cells stored{f', {failed} failed' if failed else ''}{when}"
    return _Seen(stores, state, any(writers), status)


def _state(paths: Iterable[Path]) -> tuple[_State, datetime | None]:
    found = []
    for path in paths:
        try:
            stat = path.stat()
        except FileNotFoundError:  # a failure that has its result since
            continue
        found.append((path.name, stat.st_mtime_ns, stat.st_size))
    last = max((changed for _, changed, _ in found), default=None)
    return tuple(found), datetime.fromtimestamp(last / 1e9) if last else None
