"""Reads the table of stored results again, for commands with ``--data`` or ``--show-text``."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toxbench.cli.options import used
from toxbench.config import build_settings, option_name
from toxbench.errors import SettingsError
from toxbench.settings import ColumnSettings, SplitSettings

if TYPE_CHECKING:
    from toxbench.data.table import TextDataset
    from toxbench.store.cells import ProtocolRecord
    from toxbench.util.arrays import Members


def texts_to_show(protocol: "ProtocolRecord", values: Mapping[str, Any]) -> Sequence[str] | None:
    """Read the comments for ``--show-text``; None without it.

    Raises:
        SettingsError: options that need ``--show-text``, without it.
        DataError: the table is not that of the results.
    """
    check_table_options(values)
    if values["show_text"]:
        return read_table(protocol, values).texts
    if values["data"] is not None and not values.get("slices"):
        raise SettingsError("--data is read only to show comments; add --show-text")
    return None


def find_slices(protocol: "ProtocolRecord", values: Mapping[str, Any]) -> "dict[str, Members]":
    """Return the slices of the test rows that `slice_options` name.

    Raises:
        SettingsError: options that contradict each other, or no table.
        DataError: as `read_table`, or a list of terms that cannot be read.
    """
    from toxbench.data.groups import column_slices, read_terms, term_slices

    rows = [row for fold in protocol.folds for row in fold.test]
    if not values["by"]:
        terms, texts = read_terms(values["terms"]), read_table(protocol, values).texts
        return term_slices(terms, (texts[row] for row in rows))
    if values["terms"] is not None:
        raise SettingsError("--by and --terms both choose the slices; give one of them")
    if values["data"] is None:
        raise SettingsError("--by: columns are not stored with results; add --data FILE")
    members: dict[str, Members] = {}
    for name in values["by"]:
        # A table holds one column in addition to texts, ids and labels: that of groups.
        roles = {"group_column": name, "labels": values["labels"] or protocol.labels}
        table = read_table(protocol, {**values, **roles})
        if name == table.columns["text"]:
            raise SettingsError("--by names the comments, which are never printed; name another")
        cells = table.groups or ()
        members |= column_slices(name, [cells[row] for row in rows])
    return members


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
