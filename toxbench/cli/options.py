"""Options that several commands share; those of settings are made from the settings themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Command = TypeVar("Command", bound=Callable[..., Any])


def comma_list(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    """Turn ``a,b,c`` into a tuple; None stays None and ``none`` is the empty tuple."""
    if value is None:
        return None
    words = [word.strip() for word in value.split(",")]
    return tuple(word for word in words if word and word != "none")


def column_options(command: Command) -> Command:
    """Add the options that say which columns mean what."""
    for option in reversed(
        (
            click.option("--text-column", metavar="NAME", help="Column of the comments."),
            click.option("--id-column", metavar="NAME", help="Column of unique ids."),
            click.option("--group-column", metavar="NAME", help="Column of groups, e.g. videos."),
            click.option(
                "--labels", metavar="A,B,C", callback=comma_list, help="Label columns (0/1)."
            ),
            click.option("--encoding", metavar="NAME", help="Of text files. [utf-8]"),
        )
    ):
        command = option(command)
    return command


def used(kind: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    """Take the options that were used and are fields of ``kind`` out of a command's values."""
    return {k: v for k, v in values.items() if k in kind.model_fields and v is not None}


def settings_options(kind: type[BaseModel]) -> Callable[[Command], Command]:
    """Make one option of every field: ``learning_rate`` becomes ``--learning-rate``.

    The options have no default, so that only what a user wrote overrides config and preset.
    """

    def add(command: Command) -> Command:
        for name, field in reversed(kind.model_fields.items()):
            command = click.option(
                f"--{name.replace('_', '-')}",
                name,
                type=_click_type(field),
                help=f"{(field.description or '').capitalize()}.",
            )(command)
        return command

    return add


def results_option(command: Command) -> Command:
    """Add ``--results``."""
    return click.option(
        "--results",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="FOLDER",
        help="Where results are kept. [results]",
    )(command)


def _click_type(field: FieldInfo) -> Any:
    if get_origin(field.annotation) is Literal:
        return click.Choice(get_args(field.annotation))
    return field.annotation
