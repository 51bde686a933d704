"""``toxbench errors``: which rows to look at, from stored results."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxbench.cli.options import FilePath, column_options, format_option, plugins_option, used
from toxbench.cli.output import say
from toxbench.errors import DataError, SettingsError

if TYPE_CHECKING:
    from toxbench.data.table import Comments
    from toxbench.store.cells import ProtocolRecord

_FILE = FilePath()
_ONE_TABLE = ("csv", "json")  # formats that hold one table a file


@click.command()
@click.argument("folder", type=FilePath(), required=False)
@click.option(
    "--table",
    "which",
    type=click.Choice(["missed", "disagree", "labels"]),
    help="Print this one alone; csv and json need it.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="Rows of each table, in every format.",
)
@format_option
@plugins_option
@click.option(
    "--show-text",
    is_flag=True,
    help="Show the comments, shortened and escaped; they need --data, but for the sample.",
)
@click.option("--data", type=_FILE, metavar="FILE", help="The table that was run.")
@click.option("--valid", type=_FILE, metavar="FILE", help="Its validation rows, if run with them.")
@click.option("--test", type=_FILE, metavar="FILE", help="Its test rows, if run with them.")
@column_options
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def errors(
    folder: Path | None,
    which: str | None,
    limit: int,
    name: str | None,
    plugins: tuple[str, ...] | None,
    **values: Any,
) -> None:
    """Print rows to look at, by id, from the results in FOLDER; without one, the newest.

    Test rows that every candidate misses, those that they disagree about, and labels that look
    wrong. Nothing is trained, and no comment is printed without --show-text.
    """
    from toxbench.plugin.registry import Registry
    from toxbench.report.errors import TABLES, Shown
    from toxbench.store.find import find_store
    from toxbench.store.predicted import load_predicted

    if name in _ONE_TABLE and which is None:
        raise SettingsError(f"{name} holds one table; choose with --table missed|disagree|labels")
    render = Registry.discover(plugins).report_format(name or "plain").item.render
    predicted = load_predicted(find_store(folder or Path("results")))
    shown = Shown(limit, _texts(predicted.protocol, values))
    tables = [make(predicted, shown) for key, make in TABLES.items() if which in {None, key}]
    say("\n\n".join(render(table).strip() for table in tables))


def _texts(protocol: "ProtocolRecord", values: dict[str, Any]) -> tuple[str, ...] | None:
    """Read the comments if they are to be shown, and refuse those of another table."""
    if not values["show_text"]:
        if values["data"] is not None:
            raise SettingsError("--data is read only to show comments; add --show-text")
        return None
    from toxbench.data.split import Protocol

    comments = _comments(protocol, values)
    if Protocol(comments, (), {}).data_fingerprint != protocol.data_fingerprint:
        raise DataError(
            f"{comments.name!r} is not the table of these results, which is {protocol.name!r} with "
            f"{protocol.rows} rows and {len(protocol.labels)} labels; name that one, with the "
            "column options, --valid and --test that it was run with"
        )
    return comments.texts


def _comments(protocol: "ProtocolRecord", values: dict[str, Any]) -> "Comments":
    from toxbench.data.official import read_files
    from toxbench.data.sample import sample_comments
    from toxbench.data.table import read_comments
    from toxbench.settings import ColumnSettings, SplitSettings, layered

    if values["data"] is None:
        if not protocol.synthetic:
            raise SettingsError("comments are not stored with results; add --data FILE")
        return sample_comments()
    columns = layered(ColumnSettings, used(ColumnSettings, values))
    if values["test"] is None:
        return read_comments(values["data"], columns)
    # Only the rows and their order matter here, so no validation rows are drawn.
    split = layered(SplitSettings, {"validation_size": 0}, used(SplitSettings, values))
    return read_files(values["data"], columns, split).comments
