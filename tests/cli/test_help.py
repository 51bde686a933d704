"""``toxbench COMMAND --help``."""

import re
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from toxbench.cli.main import cli


def commands(group: click.Group, *words: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command, with those of subcommands."""
    for name, command in group.commands.items():
        yield (*words, name)
        if isinstance(command, click.Group):
            yield from commands(command, *words, name)


@pytest.mark.parametrize("words", sorted(commands(cli)), ids=" ".join)
def test_help_shows_the_options_of_the_command(words: tuple[str, ...]) -> None:
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    options = {
        name for p in command.params if isinstance(p, click.Option) for name in p.opts
    } | {"--help", "-h"}  # fmt: skip
    text = CliRunner().invoke(cli, [*words, "--help"], prog_name="toxbench").output
    shown = re.findall(r"^  (?:(-\w), )?(--[\w-]+)", text, re.MULTILINE)
    assert {name for names in shown for name in names if name} == options
