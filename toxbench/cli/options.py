"""Options that several commands share; those of settings are made from the settings themselves."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from toxbench.config import PRESETS, layered, read_config, run_settings
from toxbench.errors import SettingsError
from toxbench.settings import (
    ColumnSettings,
    Frozen,
    RunSettings,
    SplitSettings,
    TrainSettings,
    possible_path,
)

if TYPE_CHECKING:
    from toxbench.data.table import TextDataset
    from toxbench.store.cells import ProtocolRecord


Command = TypeVar("Command", bound=Callable[..., Any])


class FilePath(click.Path):
    """A path as `pathlib.Path`, refused at once where no file could have it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check the words before the file system sees them."""
        try:
            possible_path(Path(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


def comma_list(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    """Turn ``a,b,c`` into a tuple; None stays None and ``none`` is the empty tuple."""
    if value is None:
        return None
    words = [word.strip() for word in value.split(",")]
    return tuple(word for word in words if word and word != "none")


def _add(command: Command, *options: Callable[[Command], Command]) -> Command:
    """Add options; help shows them in this order."""
    for option in reversed(options):
        command = option(command)
    return command


_TEXT = click.option("--text-column", metavar="NAME", help="Column of the comments.")
_ID = click.option("--id-column", metavar="NAME", help="Column of unique ids.")
_DROP = click.option(
    "--drop-empty", is_flag=True, default=None, help="Leave out rows without a text."
)
_ENCODING = click.option("--encoding", metavar="NAME", help="Of text files. [utf-8]")


def input_options(command: Command) -> Command:
    """Add the options that say where the comments of a table without labels are."""
    return _add(command, _TEXT, _ID, _DROP, _ENCODING)


def column_options(command: Command) -> Command:
    """Add the options that say which columns mean what."""
    return _add(
        command,
        _TEXT,
        _ID,
        click.option("--group-column", metavar="NAME", help="Column of groups, e.g. videos."),
        click.option("--labels", metavar="A,B,C", callback=comma_list, help="Label columns (0/1)."),
        click.option("--true-values", metavar="A,B,C", help="Words for yes, beside 1 and true."),
        click.option("--false-values", metavar="A,B,C", help="Words for no, beside 0 and false."),
        _DROP,
        _ENCODING,
    )


def plugins_option(command: Command) -> Command:
    """Add ``--plugins``, which every command has that discovers some."""
    return click.option(
        "--plugins",
        metavar="A,B,C",
        callback=comma_list,
        help="Plugins of others that may load, by the names of their entry points, or none; "
        "toxbench's own always do. [all that are installed]",
    )(command)


def format_option(command: Command) -> Command:
    """Add ``--format``."""
    return click.option(
        "--format", "name", metavar="NAME", help="github, markdown, latex, csv, json, html."
    )(command)


_BACKBONES = click.option(
    "--backbones",
    metavar="A,B,C",
    callback=comma_list,
    help="What to compare; see: toxbench backbones. [bert,distilbert]",
)
_DATA = click.option(
    "--data",
    type=FilePath(),
    metavar="FILE",
    help="CSV, TSV, Parquet or JSON lines. [a synthetic sample]",
)
_WEIGHTS = click.option(
    "--weights",
    multiple=True,
    metavar="SOURCE",
    help="auto, hub, stand-in, or NAME=PATH for one backbone; may be repeated. [auto]",
)
_DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cuda", "mps", "cpu"]),
    help="Where to train. [auto]",
)


def training_options(command: Command) -> Command:
    """Add what is trained, on which table, from which weights, where."""
    return _add(command, _BACKBONES, _DATA, _WEIGHTS, _DEVICE, plugins_option)


def experiment_options(command: Command) -> Command:
    """Add what every command has that makes cells: the same, and what is compared how often."""
    return _add(
        results_option(column_options(command)),
        _BACKBONES,
        click.option(
            "--baselines",
            metavar="A,B,C",
            callback=comma_list,
            help="Cheap references, or none. [all that are registered]",
        ),
        _DATA,
        click.option(
            "--seeds", type=int, metavar="N", help="Cells of each backbone: seeds 0 to N-1. [1]"
        ),
        _WEIGHTS,
        click.option(
            "--preset",
            metavar="|".join(PRESETS),
            help="A whole recipe; notebook is the original study's.",
        ),
        click.option(
            "--config",
            type=FilePath(),
            metavar="FILE",
            help="TOML file with the same settings; flags win over it.",
        ),
        _DEVICE,
        click.option(
            "--workers",
            type=int,
            metavar="N",
            help="Cells computed at once, in processes that share the cores. [what pays]",
        ),
        click.option(
            "--executor",
            type=click.Choice(get_args(RunSettings.model_fields["executor"].annotation)),
            help="What computes cells: this machine, or Ray; results are the same. [local]",
        ),
        click.option(
            "--ray-address",
            metavar="ADDRESS",
            help="Of a Ray cluster that you trust: auto or HOST:PORT. [a Ray of "
            "its own on this machine]",
        ),
        click.option(
            "--cpus-per-cell",
            type=int,
            metavar="N",
            help="Threads of a cell, and CPUs that Ray counts for it. [cores shared among workers]",
        ),
        click.option(
            "--gpus-per-cell",
            type=float,
            metavar="SHARE",
            help="What a cell gets of a GPU, such as 0.5 for small tables. [1]",
        ),
        click.option(
            "--save-models",
            type=click.Choice(get_args(RunSettings.model_fields["save_models"].annotation)),
            help="Trained models to keep: of each backbone the one that is best on validation rows,"
            " those of all cells, or none. [best]",
        ),
        click.option(
            "--cell-timeout",
            metavar="TIME",
            help="What a cell may take, such as 90s, 30m or 2h; then it has failed. [any time]",
        ),
        click.option(
            "--checkpoint-every",
            metavar="TIME",
            help="Training time after which a cell's state is kept, to go on from. [10m]",
        ),
        click.option(
            "--trackers",
            metavar="A,B,C",
            callback=comma_list,
            help="Tell these of epochs and cells: tensorboard, mlflow, or a plugin's. [none]",
        ),
        plugins_option,
    )


def output_options(command: Command) -> Command:
    """Add what every command has that ends with a leaderboard."""
    return _add(
        command,
        click.option("--dry-run", is_flag=True, help="Print the plan and stop."),
        click.option("--quiet", is_flag=True, help="Print the leaderboard and nothing else."),
        click.option("--json", "as_json", is_flag=True, help="Print the leaderboard as JSON only."),
        click.option("--debug", is_flag=True, help="Show a traceback with every error."),
    )


def settings_from(
    values: dict[str, Any], below: dict[str, Any] | None = None, **more: dict[str, Any]
) -> RunSettings:
    """Merge the options of a command with its config file.

    Args:
        values: of `experiment_options` and of settings' options.
        below: what the config file wins over.
        more: further tables of `RunSettings`.

    Raises:
        SettingsError: as `toxbench.config.run_settings`.
    """
    config = (below or {}) | (read_config(values["config"]) if values["config"] else {})
    kinds: dict[str, type[Frozen]] = {
        "columns": ColumnSettings,
        "train": TrainSettings,
        "split": SplitSettings,
    }
    tables = {name: used(kind, values) for name, kind in kinds.items()} | more
    plain = used(RunSettings, values)
    if not plain["weights"]:  # an option that may be repeated is empty, not None, when unused
        del plain["weights"]
    return run_settings(config, plain | {name: table for name, table in tables.items() if table})


def used(kind: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    """Take the options that were used and are fields of ``kind`` out of a command's values."""
    return {k: v for k, v in values.items() if k in kind.model_fields and v is not None}


def settings_options(
    kind: type[BaseModel], without: tuple[str, ...] = ()
) -> Callable[[Command], Command]:
    """Make one option of every field: ``learning_rate`` becomes ``--learning-rate``.

    The options have no default, so that only what a user wrote overrides config and preset.
    """

    def add(command: Command) -> Command:
        fields = [item for item in kind.model_fields.items() if item[0] not in without]
        for name, field in reversed(fields):
            command = click.option(
                f"--{name.replace('_', '-')}",
                name,
                type=_click_type(field),
                help=_sentence(field.description or ""),
            )(command)
        return command

    return add


def results_option(command: Command) -> Command:
    """Add ``--results``."""
    return click.option(
        "--results",
        type=FilePath(file_okay=False),
        metavar="FOLDER",
        help="Where results are kept. [results]",
    )(command)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _click_type(field: FieldInfo) -> Any:
    if get_origin(field.annotation) is Literal:
        return click.Choice(get_args(field.annotation))
    if isinstance(field.annotation, UnionType):  # X | None: unset is a value of its own
        plain = get_args(field.annotation)[0]
        return FilePath() if plain is Path else plain
    return field.annotation


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


def read_table(protocol: "ProtocolRecord", values: dict[str, Any]) -> "TextDataset":
    """Read the table that `table_options` name; raises as `read_matching_table`."""
    from toxbench.benchmark.resume import read_matching_table

    columns = layered(ColumnSettings, used(ColumnSettings, values))
    split = layered(SplitSettings, used(SplitSettings, values))
    return read_matching_table(protocol, values["data"], columns, split)


def refuse_without_data(values: dict[str, Any]) -> None:
    """Refuse options that say how a table is read where none is; raises `SettingsError`."""
    names = [*used(SplitSettings, values), *used(ColumnSettings, values)]
    if names and values["data"] is None:
        option = names[0].replace("_", "-")
        raise SettingsError(f"--{option} says how a table is read; add --data FILE")
