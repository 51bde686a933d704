"""``toxbench merge``: the results of several machines in one folder."""

from pathlib import Path

import cloup

from toxbench.cli.console import echo
from toxbench.cli.options import OUTPUT, FilePath, debug_option


@cloup.command(short_help="Join the results of several machines.")
@cloup.argument("folders", metavar="FOLDER...", type=FilePath(), nargs=-1, required=True)
@OUTPUT.option(
    "--into", type=FilePath(file_okay=False), metavar="FOLDER", required=True,
    help="Folder of all results to write to; it need not exist.",
)  # fmt: skip
@debug_option
def merge(folders: tuple[Path, ...], into: Path) -> None:
    """Copy the cells of each FOLDER, with their models and failures, and write a leaderboard.

    All must be of one protocol. A cell that several folders contain is stored once, from the
    first; one with other probabilities is reported and copied to the folder conflicts.
    """
    from toxbench.benchmark.run import write_leaderboard
    from toxbench.ranking.build import load_leaderboard
    from toxbench.ranking.cells import check_same_protocol
    from toxbench.store.cells import SUBSETS, CellStore, find_store, stores_below
    from toxbench.store.merge import merge_stores
    from toxbench.util.text import count_of, escape_line

    sources = [*map(find_store, folders)]
    load_leaderboard(*sources)  # raises before anything is written
    protocol = sources[0].protocol()
    target = CellStore.for_protocol(into, protocol.name, protocol.fingerprint)
    with target.lock():
        repairs = target.repair()
        if target.protocol_path.is_file():
            check_same_protocol(protocol, target.protocol(), target.folder)
        for line in (*repairs, *merge_stores(sources, target)):
            echo(f"toxbench: warning: {escape_line(line)}", err=True, style="warning")
        for store in (target, *stores_below(target.folder / SUBSETS)):
            write_leaderboard(store)
    echo(f"{count_of(len(target.paths()), 'cell')} in {target.folder}")
