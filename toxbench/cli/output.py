"""The one door to the terminal: whatever is printed holds nothing that a terminal would obey."""

import click

from toxbench.report.words import inert


def say(text: str, err: bool = False) -> None:
    """Print lines, on stderr if asked, with every control character as its escape."""
    click.echo(inert(text), err=err)
