"""``toxbench leaderboard``: print a stored leaderboard again."""

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--format", "name", metavar="NAME", help="github, markdown, latex, csv, json, html.")
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def leaderboard(folder: Path | None, name: str | None, debug: bool) -> None:
    """Print the stored leaderboard of FOLDER; without one, the newest in results/."""
    from toxbench.cli.show import print_leaderboard
    from toxbench.plugin.registry import Registry
    from toxbench.store.find import find_store

    print_leaderboard(find_store(folder or Path("results")), Registry.discover(), name)
