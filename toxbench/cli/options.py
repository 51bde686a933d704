"""The options of the commands, in the groups that ``--help`` shows."""

from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
import cloup
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from toxbench.config import PRESETS, build_run_settings, read_config
from toxbench.errors import SettingsError
from toxbench.settings import (
    ColumnSettings,
    RunSettings,
    SplitSettings,
    TrainSettings,
    validate_path,
)

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]


class SharedGroup(cloup.OptionGroup):
    """A group of options that several commands share.

    cloup stores in a group the options of the command that was created last, and would show them
    in the help of every command.
    """

    def get_help_records(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Return the help of the command's own options."""
        options = (p for p in ctx.command.params if getattr(p, "group", None) is self)
        records = (option.get_help_record(ctx) for option in options)
        return [record for record in records if record is not None]


DATA = SharedGroup("Data")
MODELS = SharedGroup("Models")
SEARCH = SharedGroup("Search")
TRAINING = SharedGroup("Training")
SPLIT = SharedGroup("Split")
OUTPUT = SharedGroup("Output")
SCALE = SharedGroup("Scale")


class FilePath(click.Path):
    """A path as `pathlib.Path`; raises at once for a path that no file can have."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check the path before the file system does."""
        try:
            validate_path(Path(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


def comma_list(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    """Turn ``a,b,c`` into a tuple; None stays None and ``none`` is the empty tuple."""
    if value is None:
        return None
    words = [word.strip() for word in value.split(",")]
    return tuple(word for word in words if word and word != "none")


def _names_option(name: str, help_text: str, group: cloup.OptionGroup) -> Decorator[Any]:
    return cloup.option(name, metavar="A,B,C", callback=comma_list, help=help_text, group=group)


def combined(*decorators: Decorator[Any]) -> Decorator[Any]:
    """Return a decorator that adds options in this order."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


# Data


def _merge(first: str, second: str, target: str, names: tuple[str, str]) -> Decorator[Any]:
    """Return a decorator that passes two parameters, of which one may be given, as one."""

    def decorate(function: Command) -> Command:
        @wraps(function)
        def merged(*arguments: Any, **values: Any) -> Any:
            given = [value for name in (first, second) if (value := values.pop(name)) is not None]
            if len(set(given)) > 1:
                raise SettingsError(f"{names[0]} and {names[1]} are the same; give one of them")
            return function(*arguments, **values, **{target: given[0] if given else None})

        return merged  # type: ignore[return-value]

    return decorate


def data_option(help_text: str) -> Decorator[Any]:
    """Add FILE and ``--data FILE``, which mean the same; passed as ``data``."""
    return combined(
        cloup.argument("file", metavar="[FILE]", type=FilePath(), required=False),
        cloup.option(
            "--data", "data_file", type=FilePath(), metavar="FILE", help=help_text, group=DATA
        ),
        _merge("file", "data_file", "data", ("FILE", "--data FILE")),
    )


RUN_TABLE = "The same as FILE: CSV, TSV, Parquet or JSON lines. [a synthetic sample]"
STORED_TABLE = "The table that was run, to check or show it."

_TEXT_COLUMN = cloup.option(
    "--text-column", metavar="NAME", help="Column of the comments. [auto]", group=DATA
)
_ID_COLUMN = cloup.option(
    "--id-column", metavar="NAME", help="Column of unique ids. [auto]", group=DATA
)
_DROP_EMPTY = cloup.option(
    "--drop-empty", is_flag=True, default=None, help="Leave out rows without a text.", group=DATA
)
_ENCODING = cloup.option(
    "--encoding", metavar="NAME", help="Encoding of text files. [utf-8]", group=DATA
)
text_options = combined(_TEXT_COLUMN, _ID_COLUMN, _DROP_EMPTY, _ENCODING)
column_options = combined(
    _TEXT_COLUMN,
    _ID_COLUMN,
    cloup.option(
        "--group-column", metavar="NAME", help="Column of groups, such as videos.", group=DATA
    ),
    _names_option("--labels", "Label columns, which hold 0 and 1. [auto]", DATA),
    cloup.option(
        "--true-values", metavar="A,B,C", help="Words for 1, in addition to true.", group=DATA
    ),
    cloup.option(
        "--false-values", metavar="A,B,C", help="Words for 0, in addition to false.", group=DATA
    ),
    _DROP_EMPTY,
    _ENCODING,
)
stored_table_options = combined(
    *(
        cloup.option(name, type=FilePath(), metavar="FILE", help=help_text, group=DATA)
        for name, help_text in (
            ("--data", STORED_TABLE),
            ("--valid", "Its validation rows, if the run had --valid."),
            ("--test", "Its test rows, if the run had --test."),
        )
    ),
    column_options,
)
show_text_options = combined(
    cloup.option(
        "--show-text", is_flag=True, group=DATA,
        help="Show comments, shortened and escaped; needs --data, except for the sample.",
    ),
    stored_table_options,
)  # fmt: skip

# Models

backbones_option = _names_option(
    "--backbones", "Backbones to compare; see toxbench backbones. [bert,distilbert]", MODELS
)
weights_option = cloup.option(
    "--weights", multiple=True, metavar="SOURCE", group=MODELS,
    help="auto, hub, stand-in, or NAME=PATH for one backbone; may be repeated. [auto]",
)  # fmt: skip
plugins_option = _names_option(
    "--plugins",
    "Plugins of other distributions to load, by entry point, or none. [all installed]",
    MODELS,
)
device_option = cloup.option(
    "--device", type=click.Choice(["auto", "cuda", "mps", "cpu"]), group=SCALE,
    help="Device to compute on. [auto]",
)  # fmt: skip
config_option = cloup.option(
    "--config", type=FilePath(), metavar="FILE", group=MODELS,
    help="TOML file with the same settings; options override it.",
)  # fmt: skip

# Output

results_option = cloup.option(
    "--results", type=FilePath(file_okay=False), metavar="FOLDER", group=OUTPUT,
    help="Folder of all results. [results]",
)  # fmt: skip
results_argument = combined(
    cloup.argument("folder", metavar="[FOLDER]", type=FilePath(), required=False),
    cloup.option(
        "--results", "results_folder", type=FilePath(), metavar="FOLDER", group=OUTPUT,
        help="The same as FOLDER. [the newest results in results]",
    ),
    _merge("folder", "results_folder", "results", ("FOLDER", "--results FOLDER")),
)  # fmt: skip
format_option = combined(
    cloup.option(
        "--format", "format_value", metavar="NAME", group=OUTPUT,
        help="github, markdown, latex, csv, json or html. [for a terminal]",
    ),
    cloup.option(
        "--json", "json_value", flag_value="json", default=None, group=OUTPUT,
        help="The same as --format json.",
    ),
    _merge("format_value", "json_value", "format_name", ("--format", "--json")),
)  # fmt: skip
debug_option = cloup.option(
    "--debug", is_flag=True, help="Show a traceback with every error.", group=OUTPUT
)
full_option = cloup.option(
    "--full", is_flag=True, group=OUTPUT,
    help="Print all tables: tuned thresholds, further metrics, uncertainty and cost.",
)  # fmt: skip


def settings_options(
    kind: type[BaseModel], group: cloup.OptionGroup, without: tuple[str, ...] = ()
) -> Decorator[Any]:
    """Make one option of every field: ``learning_rate`` becomes ``--learning-rate``.

    The options have no default, so that only what a user wrote overrides config and preset.
    """
    return combined(
        *(
            cloup.option(
                f"--{name.replace('_', '-')}",
                name,
                type=_click_type(field),
                help=_sentence(field.description or ""),
                group=group,
            )
            for name, field in kind.model_fields.items()
            if name not in without
        )
    )


def experiment_options(*search: Decorator[Any]) -> Decorator[Any]:
    """Return the options of every command that trains cells, with those of a search if given."""
    return combined(
        data_option(RUN_TABLE),
        column_options,
        backbones_option,
        _names_option("--baselines", "Cheap baselines, or none. [all registered]", MODELS),
        cloup.option(
            "--seeds", type=int, metavar="N", group=MODELS,
            help="Cells of each backbone: seeds 0 to N-1. [1]",
        ),
        weights_option,
        cloup.option(
            "--preset", metavar="|".join(PRESETS), group=MODELS,
            help="A complete recipe; notebook is that of the original study.",
        ),
        config_option,
        plugins_option,
        *search,
        settings_options(TrainSettings, TRAINING),
        settings_options(SplitSettings, SPLIT),
        results_option,
        cloup.option(
            "--save-models", type=_choice("save_models"), group=OUTPUT,
            help="Trained models to keep: of each backbone the best on validation rows, all, or "
            "none. [best]",
        ),
        _names_option("--trackers", "Log to tensorboard, mlflow, or a plugin's. [none]", OUTPUT),
        cloup.option("--dry-run", is_flag=True, help="Print the plan and stop.", group=OUTPUT),
        cloup.option(
            "--verbose", is_flag=True, group=OUTPUT,
            help="Print a line for every epoch, and every warning.",
        ),
        cloup.option(
            "--quiet", is_flag=True, help="Print only the leaderboard and errors.", group=OUTPUT
        ),
        full_option,
        format_option,
        debug_option,
        device_option,
        cloup.option(
            "--workers", type=int, metavar="N", group=SCALE,
            help="Cells computed at once, in processes that share the cores. [auto]",
        ),
        cloup.option(
            "--executor", type=_choice("executor"), group=SCALE,
            help="Where cells are computed: on this machine or on Ray. [local]",
        ),
        cloup.option(
            "--ray-address", metavar="ADDRESS", group=SCALE,
            help="Address of a Ray cluster that you trust: auto or HOST:PORT. [start Ray here]",
        ),
        cloup.option(
            "--cpus-per-cell", type=int, metavar="N", group=SCALE,
            help="Threads of a cell, and CPUs that Ray reserves for it. [auto]",
        ),
        cloup.option(
            "--gpus-per-cell", type=float, metavar="SHARE", group=SCALE,
            help="Share of a GPU for a cell, such as 0.5 for small tables. [1]",
        ),
        cloup.option(
            "--cell-timeout", metavar="TIME", group=SCALE,
            help="Time limit of a cell, such as 90s, 30m or 2h. [no limit]",
        ),
        cloup.option(
            "--checkpoint-every", metavar="TIME", group=SCALE,
            help="Training time between two checkpoints of a cell. [10m]",
        ),
    )  # fmt: skip


# Settings


def settings_from(
    values: Mapping[str, Any], below: Mapping[str, Any] | None = None, **tables: dict[str, Any]
) -> RunSettings:
    """Merge the options of a command with its config file.

    Args:
        values: of `experiment_options`.
        below: defaults that the config file overrides.
        tables: additional tables of `RunSettings`.

    Raises:
        SettingsError: as `toxbench.config.build_run_settings`.
    """
    config = {**(below or {}), **(read_config(values["config"]) if values.get("config") else {})}
    kinds: dict[str, type[BaseModel]] = {
        "columns": ColumnSettings,
        "train": TrainSettings,
        "split": SplitSettings,
    }
    given = {name: used(kind, values) for name, kind in kinds.items()} | tables
    options = used(RunSettings, values)
    if not options["weights"]:  # an option that may be repeated is empty, not None, when unused
        del options["weights"]
    return build_run_settings(
        config, options | {name: table for name, table in given.items() if table}
    )


def used(kind: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options that are fields of ``kind``."""
    return {k: v for k, v in values.items() if k in kind.model_fields and v is not None}


def _choice(field: str) -> click.Choice[str]:
    return click.Choice(get_args(RunSettings.model_fields[field].annotation))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _click_type(field: FieldInfo) -> Any:
    if get_origin(field.annotation) is Literal:
        return click.Choice(get_args(field.annotation))
    if isinstance(field.annotation, UnionType):  # X | None: unset is a value of its own
        plain = get_args(field.annotation)[0]
        return FilePath() if plain is Path else plain
    return field.annotation
