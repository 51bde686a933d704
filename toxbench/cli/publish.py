"""``toxbench publish``: a static website of stored results."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cloup

from toxbench.cli.console import echo
from toxbench.cli.options import FilePath, debug_option
from toxbench.config import results_folder
from toxbench.errors import SettingsError

if TYPE_CHECKING:
    from toxbench.ranking.rows import Leaderboard
    from toxbench.store.cells import CellStore


@cloup.command(short_help="Write a website with the report of each protocol.")
@cloup.argument("site", metavar="SITE", type=FilePath(file_okay=False))
@cloup.argument("folders", metavar="[FOLDER]...", type=FilePath(), nargs=-1)
@debug_option
def publish(site: Path, folders: tuple[Path, ...]) -> None:
    """Write index.html and a report of each protocol of each FOLDER into the folder SITE.

    Pages without scripts that load nothing and show no comment. FOLDER is a folder of all results,
    by default results, or that of one protocol.
    """
    from toxbench.api.page import write_report
    from toxbench.ranking.build import load_leaderboard
    from toxbench.report.html.load import load_report_data
    from toxbench.report.html.page import render_site
    from toxbench.util.atomic import write_atomically
    from toxbench.util.text import count_of

    boards: dict[str, Leaderboard] = {}
    for name, store in _stores_by_protocol(folders or (results_folder(),)).items():
        data = load_report_data(store, load_leaderboard(store))
        path = write_report(site / name, data)
        boards[path.relative_to(site).as_posix()] = data.board
    write_atomically(site / "index.html", render_site(boards).encode("utf-8"))
    echo(f"{count_of(len(boards), 'protocol')} in {site / 'index.html'}")


def _stores_by_protocol(folders: tuple[Path, ...]) -> "dict[str, CellStore]":
    """Return fingerprint -> store; raises `SettingsError` if two stores are of one protocol."""
    stores: dict[str, CellStore] = {}
    for store in (store for folder in folders for store in _find_all(folder)):
        name = store.protocol().fingerprint[:12]
        if name in stores:
            raise SettingsError(
                f"{stores[name].folder} and {store.folder} hold results of one protocol; first: "
                "toxbench merge"
            )
        stores[name] = store
    return stores


def _find_all(folder: Path) -> "Iterator[CellStore]":
    """Yield all stores in a results folder, or that of a protocol's folder, as `find_store`."""
    from toxbench.store.cells import find_store, stores_below

    for path in [store.folder for store in stores_below(folder)] or [folder]:
        yield find_store(path)
