"""Read the table of stored results again, for commands with ``--data`` or ``--show-text``."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toxbench.cli.options import used
from toxbench.config import build_settings, option_name
from toxbench.errors import SettingsError
from toxbench.settings import ColumnSettings, SplitSettings

if TYPE_CHECKING:
    from toxbench.data.table import TextDataset
    from toxbench.store.cells import ProtocolRecord


def texts_to_show(protocol: "ProtocolRecord", values: Mapping[str, Any]) -> Sequence[str] | None:
    """Read the comments for ``--show-text``; None without it.

    Raises:
        SettingsError: options that need ``--show-text``, without it.
        DataError: the table is not that of the results.
    """
    check_table_options(values)
    if values["show_text"]:
        return read_table(protocol, values).texts
    if values["data"] is not None:
        raise SettingsError("--data is read only to show comments; add --show-text")
    return None


def read_table(protocol: "ProtocolRecord", values: Mapping[str, Any]) -> "TextDataset":
    """Read the table that `stored_table_options` name; raises as `read_matching_table`."""
    from toxbench.benchmark.resume import read_matching_table

    columns = build_settings(ColumnSettings, used(ColumnSettings, values))
    split = build_settings(SplitSettings, used(SplitSettings, values))
    return read_matching_table(protocol, values["data"], columns, split)


def check_table_options(values: Mapping[str, Any]) -> None:
    """Raise `SettingsError` for options that describe a table, if there is no ``--data``."""
    names = [*used(SplitSettings, values), *used(ColumnSettings, values)]
    if names and values["data"] is None:
        raise SettingsError(f"{option_name(names[0])} describes a table; add --data FILE")
