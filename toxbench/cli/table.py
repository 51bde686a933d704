"""Options that name the table of stored results, where a command can read it again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from toxbench.cli.options import Command, FilePath, column_options, used
from toxbench.config import layered
from toxbench.errors import SettingsError
from toxbench.settings import ColumnSettings, SplitSettings

if TYPE_CHECKING:
    from toxbench.data.table import Comments
    from toxbench.store.cells import ProtocolRecord


def table_options(command: Command) -> Command:
    """Add ``--data``, ``--valid``, ``--test`` and what columns mean."""
    for name, text in (
        ("--test", "Its test rows, if run with them."),
        ("--valid", "Its validation rows, if run with them."),
        ("--data", "The table that was run."),
    ):
        command = click.option(name, type=FilePath(), metavar="FILE", help=text)(command)
    return column_options(command)


def show_text_options(command: Command) -> Command:
    """Add ``--show-text``, and what names the table whose comments it shows."""
    return click.option(
        "--show-text",
        is_flag=True,
        help="Show comments, shortened and escaped; they need --data, but for the sample.",
    )(table_options(command))


def texts_to_show(protocol: "ProtocolRecord", values: dict[str, Any]) -> Sequence[str] | None:
    """Read the comments if they are to be shown, and refuse those of another table.

    Raises:
        SettingsError: options that only matter with ``--show-text``, without it.
    """
    refuse_without_data(values)
    if values["show_text"]:
        return read_table(protocol, values).texts
    if values["data"] is not None:
        raise SettingsError("--data is read only to show comments; add --show-text")
    return None


def read_table(protocol: "ProtocolRecord", values: dict[str, Any]) -> "Comments":
    """Read the table that `table_options` name; raises as `read_table_of`."""
    from toxbench.benchmark.resume import read_table_of

    columns = layered(ColumnSettings, used(ColumnSettings, values))
    split = layered(SplitSettings, used(SplitSettings, values))
    return read_table_of(protocol, values["data"], columns, split)


def refuse_without_data(values: dict[str, Any]) -> None:
    """Refuse options that say how a table is read where none is; raises `SettingsError`."""
    names = [*used(SplitSettings, values), *used(ColumnSettings, values)]
    if names and values["data"] is None:
        option = names[0].replace("_", "-")
        raise SettingsError(f"--{option} says how a table is read; add --data FILE")
