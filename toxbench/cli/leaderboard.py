"""``toxbench leaderboard``: print a stored leaderboard again."""

from pathlib import Path

import click

from toxbench.cli.metrics import WithMetrics


@click.command(cls=WithMetrics)
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--format", "name", metavar="NAME", help="github, markdown, latex, csv, json, html.")
@click.option("--per-label", is_flag=True, help="Print the scores of each label instead.")
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def leaderboard(folder: Path | None, name: str | None, per_label: bool, debug: bool) -> None:
    """Print the stored leaderboard of FOLDER; without one, the newest in results/."""
    from toxbench.cli.show import print_labels, print_leaderboard
    from toxbench.plugin.registry import Registry
    from toxbench.store.find import find_store

    show = print_labels if per_label else print_leaderboard
    show(find_store(folder or Path("results")), Registry.discover(), name)
