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

from toxbench.config import PRESETS, build_run_settings, option_name, setting_layers
from toxbench.errors import SettingsError
from toxbench.evaluation.definitions import HALF, ROPE, RULES
from toxbench.settings import (
    ColumnSettings,
    RunSettings,
    SplitSettings,
    TrainSettings,
    validate_path,
)
from toxbench.util.text import split_names

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
        if not str(value):
            self.fail("the path is empty; give the name of a file or folder", param, ctx)
        try:
            validate_path(Path(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


def comma_list(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    """Turn ``a,"b, c"`` into a tuple; None stays None and ``none`` is the empty tuple."""
    if value is None:
        return None
    return tuple(word for word in split_names(value) if word != "none")


def names_option(group: cloup.OptionGroup, name: str, help_text: str) -> Decorator[Any]:
    """Add an option that takes names joined by commas; a name with a comma is in double quotes."""
    return group.option(name, metavar="A,B,C", callback=comma_list, help=help_text)


def _file_option(group: cloup.OptionGroup, *names: str, help_text: str) -> Decorator[Any]:
    return group.option(*names, type=FilePath(), metavar="FILE", help=help_text)


def _flag(group: cloup.OptionGroup, name: str, help_text: str) -> Decorator[Any]:
    return group.option(name, is_flag=True, help=help_text)


def _choice(field: str) -> click.Choice[str]:
    return click.Choice(get_args(RunSettings.model_fields[field].annotation))


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


def _one_or_more(context: click.Context, option: click.Parameter, paths: tuple[Path, ...]) -> Any:
    """Return a single path, several, or None."""
    return paths[0] if len(paths) == 1 else paths or None


def _table_option(*names: str, help_text: str) -> Decorator[Any]:
    return DATA.option(
        *names, type=FilePath(), metavar="FILE", multiple=True, callback=_one_or_more,
        help=help_text,
    )  # fmt: skip


def data_option(help_text: str) -> Decorator[Any]:
    """Add FILE and ``--data FILE``, which mean the same; passed as ``data``."""
    return combined(
        cloup.argument(
            "file", metavar="[FILE]...", type=FilePath(), nargs=-1, callback=_one_or_more
        ),
        _table_option("--data", "data_file", help_text=help_text),
        _merge("file", "data_file", "data", ("FILE", "--data FILE")),
    )


TABLE = (
    "The same as FILE: CSV, text with other delimiters, Parquet, Arrow, JSON or Excel, also in "
    ".gz, .zip or .zst, or hf:NAME/CONFIG; several files are one table."
)
RUN_TABLE = f"{TABLE} [a synthetic sample]"

_TEXT_AND_ID = combined(
    DATA.option("--text-column", metavar="NAME", help="Column of the comments. [auto]"),
    DATA.option("--id-column", metavar="NAME", help="Column of unique ids, or none. [auto]"),
)
_ROWS_AND_ENCODING = combined(
    DATA.option("--drop-empty", is_flag=True, default=None, help="Leave out rows without a text."),
    DATA.option("--encoding", metavar="NAME", help="Encoding of text files. [utf-8]"),
)
text_options = combined(_TEXT_AND_ID, _ROWS_AND_ENCODING)
column_options = combined(
    _TEXT_AND_ID,
    DATA.option("--group-column", metavar="NAME", help="Column of groups, such as videos."),
    names_option(DATA, "--labels", "Label columns, which hold 0 and 1. [auto]"),
    DATA.option(
        "--labels-column", metavar="NAME",
        help="Column of label sets: lists, objects, or names between separators. [auto]",
    ),
    DATA.option(
        "--labels-separator", metavar="TEXT", help="Text between the labels of a set. [auto]"
    ),
    names_option(DATA, "--label-names", "Names of labels that are integers, from 0."),
    DATA.option(
        "--positive-from", type=float, metavar="NUMBER",
        help="Smallest number that means 1, for shares and counts of annotators.",
    ),
    DATA.option("--true-values", metavar="A,B,C", help="Words for 1, in addition to true."),
    DATA.option("--false-values", metavar="A,B,C", help="Words for 0, in addition to false."),
    DATA.option(
        "--unlabelled", metavar="A,B,C",
        help="Values that mean not labelled, such as -1; blank stands for an empty cell. They are "
        "left out of loss and scores.",
    ),
    DATA.option(
        "--drop-unlabelled", is_flag=True, default=None,
        help="Leave out the rows with such a value.",
    ),
    _ROWS_AND_ENCODING,
)  # fmt: skip
stored_table_options = combined(
    _table_option("--data", help_text="The table that was run, to check or show it."),
    _file_option(DATA, "--valid", help_text="Its validation rows, if the run had --valid."),
    _file_option(DATA, "--test", help_text="Its test rows, if the run had --test."),
    column_options,
)
show_text_options = combined(
    DATA.option(
        "--show-text", is_flag=True,
        help="Show comments, shortened and escaped; needs --data, except for the sample.",
    ),
    stored_table_options,
)  # fmt: skip

terms_option = _file_option(
    DATA, "--terms",
    help_text="Words for groups of people, one group a line: women: women, female. [a short list]",
)  # fmt: skip
slice_options = combined(
    names_option(DATA, "--by", "Columns whose values are the slices, instead of identity terms."),
    terms_option,
)

# Models

backbone_option = MODELS.option(
    "--backbone", metavar="NAME", help="Backbone of the model. [the best on validation rows]"
)
backbones_option = names_option(
    MODELS,
    "--backbones",
    "Registered backbones, Hub ids or ./folders to compare. [bert,distilbert]",
)
config_option = _file_option(
    MODELS, "--config", help_text="TOML file with the same settings; options override it."
)
weights_option = MODELS.option(
    "--weights", multiple=True, metavar="SOURCE",
    help="auto, hub, stand-in, or NAME=PATH for one backbone; may be repeated. [auto]",
)  # fmt: skip
plugins_option = names_option(
    MODELS,
    "--plugins",
    "Plugins of other distributions to load, by entry point, or none. [all installed]",
)
device_option = SCALE.option(
    "--device", type=_choice("device"), help="Device to compute on. [auto]"
)

# Output

results_option = OUTPUT.option(
    "--results", type=FilePath(file_okay=False), metavar="FOLDER",
    help="Folder of all results. [results]",
)  # fmt: skip
results_argument = combined(
    cloup.argument("folder", metavar="[FOLDER]", type=FilePath(), required=False),
    OUTPUT.option(
        "--results", "results_folder", type=FilePath(), metavar="FOLDER",
        help="The same as FOLDER. [the newest results in results]",
    ),
    _merge("folder", "results_folder", "results", ("FOLDER", "--results FOLDER")),
)  # fmt: skip
format_option = combined(
    OUTPUT.option(
        "--format", "format_value", metavar="NAME",
        help="github, markdown, latex, csv, json or html. [for a terminal]",
    ),
    OUTPUT.option(
        "--json", "json_value", flag_value="json", default=None, help="The same as --format json."
    ),
    _merge("format_value", "json_value", "format_name", ("--format", "--json")),
)  # fmt: skip
debug_option = OUTPUT.option(
    "--debug", is_flag=True, expose_value=False, help="Show a traceback with every error."
)
full_option = _flag(
    OUTPUT, "--full", "Print all tables: tuned thresholds, further metrics, uncertainty and cost."
)
quoted_option = _file_option(
    OUTPUT, "--quoted", help_text="TOML file of scores of publications, for rows without a rank."
)
ensembles_option = _flag(
    OUTPUT, "--ensembles", "Add averages of seeds and of candidates, from stored probabilities."
)
rope_option = OUTPUT.option(
    "--rope", type=click.FloatRange(0, 1), default=ROPE, show_default=True,
    help="Largest difference of scores that makes no difference in practice.",
)  # fmt: skip
table_options = combined(format_option, plugins_option, debug_option)


def thresholds_option(help_text: str) -> Decorator[Any]:
    """Add ``--thresholds RULE``, passed as ``rule``."""
    return OUTPUT.option(
        "--thresholds", "rule", type=click.Choice(RULES), default=HALF, show_default=True,
        help=help_text,
    )  # fmt: skip


def settings_options(
    kind: type[BaseModel], group: cloup.OptionGroup, without: tuple[str, ...] = ()
) -> Decorator[Any]:
    """Make one option of every field: ``learning_rate`` becomes ``--learning-rate``.

    The options have no default, so that only what a user wrote overrides config and preset.
    """
    return combined(
        *(
            group.option(option_name(name), type=_click_type(field), help=_sentence(field))
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
        names_option(MODELS, "--baselines", "Baselines, or none. [all but those on request]"),
        MODELS.option(
            "--seeds", type=int, metavar="N",
            help="Cells of each backbone: seeds 0 to N-1. [1; tune: 5]",
        ),
        weights_option,
        MODELS.option(
            "--preset", metavar="|".join(PRESETS),
            help="A complete recipe; notebook is that of the original study.",
        ),
        config_option,
        plugins_option,
        *search,
        settings_options(TrainSettings, TRAINING, without=("adaptation",)),
        TRAINING.option(
            "--keep-head", "head_init_value", flag_value="checkpoint", default=None,
            help="Keep the head of weights that were trained for these labels.",
        ),
        _merge("head_init", "head_init_value", "head_init", ("--head-init", "--keep-head")),
        settings_options(SplitSettings, SPLIT),
        results_option,
        OUTPUT.option(
            "--save-models", type=_choice("save_models"),
            help="Trained models to keep: of each backbone the best on validation rows, all, or "
            "none. [best]",
        ),
        names_option(OUTPUT, "--trackers", "Log to tensorboard, mlflow, or a plugin's. [none]"),
        _flag(OUTPUT, "--dry-run", "Print the plan and stop."),
        _flag(OUTPUT, "--verbose", "Print a line for every epoch, and every warning."),
        _flag(OUTPUT, "--quiet", "Print only the result and errors."),
        full_option,
        format_option,
        _flag(OUTPUT, "--debug", "Show a traceback with every error."),
        device_option,
        SCALE.option(
            "--workers", type=int, metavar="N",
            help="Cells computed at once, in processes that share the cores. [auto]",
        ),
        SCALE.option(
            "--executor", type=_choice("executor"),
            help="Where cells are computed: on this machine or on Ray. [local]",
        ),
        SCALE.option(
            "--ray-address", metavar="ADDRESS",
            help="Address of a Ray cluster that you trust: auto or HOST:PORT. [start Ray here]",
        ),
        SCALE.option(
            "--cpus-per-cell", type=int, metavar="N",
            help="Threads of a cell, and CPUs that Ray reserves for it. [auto]",
        ),
        SCALE.option(
            "--gpus-per-cell", type=float, metavar="SHARE",
            help="Share of a GPU for a cell, such as 0.5 for small tables. [1]",
        ),
        SCALE.option(
            "--cell-timeout", metavar="TIME",
            help="Time limit of a cell, such as 90s, 30m or 2h. [no limit]",
        ),
        SCALE.option(
            "--checkpoint-every", metavar="TIME",
            help="Training time between two checkpoints of a cell. [10m]",
        ),
    )  # fmt: skip


candidate_options = combined(
    names_option(
        MODELS, "--adaptation",
        "Which weights learn: full, probe (only a linear probe), lora, each in a row. [full, and "
        "probe without --baselines]",
    ),
    MODELS.option(
        "--tuned", is_flag=True, default=None,
        help="Add each backbone with the settings that toxbench tune found.",
    ),
)  # fmt: skip


# Settings


def settings_from(
    values: Mapping[str, Any], below: Mapping[str, Any] | None = None, **tables: dict[str, Any]
) -> RunSettings:
    """Merge the options of a command with `setting_layers`, which override ``below``.

    ``tables`` are additional tables of `RunSettings`.

    Raises:
        SettingsError: as `toxbench.config.build_run_settings`.
    """
    kinds: dict[str, type[BaseModel]] = {
        "columns": ColumnSettings,
        "train": TrainSettings,
        "split": SplitSettings,
    }
    given = {name: used(kind, values) for name, kind in kinds.items()} | tables
    given["train"].pop("adaptation", None)  # a field of `RunSettings` of the same name
    options = used(RunSettings, values)
    if not options["weights"]:  # an option that may be repeated is empty, not None, when unused
        del options["weights"]
    options |= {name: table for name, table in given.items() if table}
    layers = setting_layers(values.get("config")).values()
    return build_run_settings(below or {}, *layers, options)


def used(kind: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options that are fields of ``kind``."""
    return {k: v for k, v in values.items() if k in kind.model_fields and v is not None}


def _sentence(field: FieldInfo) -> str:
    text = field.description or ""
    return f"{text[:1].upper()}{text[1:]}."


def _click_type(field: FieldInfo) -> Any:
    if get_origin(field.annotation) is Literal:
        return click.Choice(get_args(field.annotation))
    if isinstance(field.annotation, UnionType):  # X | None: unset is a value of its own
        plain = get_args(field.annotation)[0]
        return FilePath() if plain is Path else plain
    if get_origin(field.annotation) is tuple:
        return str  # names joined by commas, which the settings split
    return field.annotation
