"""``toxbench report``: one page to look at, from stored results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxbench.cli.console import echo
from toxbench.cli.options import FilePath, show_text_options, texts_to_show

if TYPE_CHECKING:
    from toxbench.records import TrialRecord


@click.command(short_help="Write one page with every picture and its numbers.")
@click.argument("folder", type=FilePath(), required=False)
@click.option("--open", "opens", is_flag=True, help="Open it in the browser.")
@show_text_options
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def report(folder: Path | None, opens: bool, **values: Any) -> None:
    """Write report.html beside the leaderboard of FOLDER; without one, of the newest results.

    One file that needs nothing else: pictures with their numbers, what leaks, and how to get the
    same numbers again. It holds no comment without --show-text.
    """
    from toxbench.report.html.load import load_report_data
    from toxbench.report.html.page import FILE, render_report
    from toxbench.store.cells import find_store
    from toxbench.util.atomic import write_atomically

    store = find_store(folder or Path("results"))
    data = load_report_data(store, texts_to_show(store.protocol(), values))
    path = store.folder / FILE
    write_atomically(path, render_report(data, _importances).encode("utf-8"))
    echo(f"Report in {path}")
    if opens:
        _open(path)


def _importances(trials: "Sequence[TrialRecord]") -> Mapping[str, float]:
    from toxbench.report.tuning import fanova_importances
    from toxbench.tuning.study import in_memory_study

    return fanova_importances(in_memory_study(trials))


def _open(path: Path) -> None:
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        echo("No browser was found here; copy the file to where there is one.", err=True)
