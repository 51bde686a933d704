"""``toxbench report``: one page to look at, from stored results."""

from pathlib import Path
from typing import Any

import cloup

from toxbench.cli.console import echo
from toxbench.cli.options import (
    DATA,
    OUTPUT,
    debug_option,
    ensembles_option,
    quoted_option,
    results_argument,
    show_text_options,
    slice_options,
)
from toxbench.cli.stored_table import find_slices, texts_to_show
from toxbench.config import results_folder
from toxbench.errors import SettingsError


@cloup.command(short_help="Write one page with all pictures and numbers.")
@results_argument
@OUTPUT.option("--open", "should_open", is_flag=True, help="Open it in the browser.")
@quoted_option
@ensembles_option
@DATA.option("--slices", is_flag=True, help="Add scores of slices; see toxbench slices.")
@slice_options
@show_text_options
@debug_option
def report(
    results: Path | None, should_open: bool, quoted: Path | None, ensembles: bool, **values: Any
) -> None:
    """Write report.html into the results in FOLDER.

    A single file without scripts: pictures with their numbers, leaks between the parts of the
    split, and the command that repeats the run. It has no comments without --show-text.
    """
    from toxbench.api.page import write_report
    from toxbench.ranking.build import load_leaderboard
    from toxbench.ranking.ensembles import load_ensemble_leaderboard
    from toxbench.ranking.quoted import read_quoted
    from toxbench.report.html.load import load_report_data
    from toxbench.store.cells import find_store
    from toxbench.util.atomic import table_mode

    store = find_store(results or results_folder())
    rows = None if quoted is None else read_quoted(quoted)
    load = load_ensemble_leaderboard if ensembles else load_leaderboard
    if not values["slices"] and (values["by"] or values["terms"]):
        raise SettingsError("--by and --terms choose slices; add --slices")
    texts = texts_to_show(store.protocol(), values)
    slices = find_slices(store.protocol(), values) if values["slices"] else {}
    mode = table_mode(*(values[name] for name in ("data", "valid", "test")))  # no table, no texts
    data = load_report_data(store, load(store, quoted=rows), texts, slices)
    path = write_report(store.folder, data, mode)
    echo(f"Report in {path}")
    if should_open:
        _open(path)


def _open(path: Path) -> None:
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        echo("No browser was found on this machine; open the file elsewhere.", err=True)
