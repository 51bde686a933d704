"""``toxbench data``: look at a table, write the sample, fetch the YouTube table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxbench.cli.options import column_options, used

if TYPE_CHECKING:
    from toxbench.data.describe import Description
    from toxbench.data.table import Comments


@click.group()
def data() -> None:
    """Look at tables, and get some."""


@data.command()
@click.argument("file", type=click.Path(path_type=Path))
@column_options
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def show(file: Path, debug: bool, **values: Any) -> None:
    """Print what the harness sees in FILE: no comment, only numbers."""
    from toxbench.data.describe import describe
    from toxbench.data.table import read_comments
    from toxbench.settings import ColumnSettings, layered

    comments = read_comments(file, layered(ColumnSettings, used(ColumnSettings, values)))
    click.echo(_text(comments, describe(comments)))


@data.command()
@click.argument("file", metavar="OUT.csv", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def sample(file: Path, debug: bool) -> None:
    """Write the built-in synthetic sample to OUT.csv."""
    from toxbench.atomic import write_atomically
    from toxbench.data.sample import sample_frame

    frame = sample_frame()
    write_atomically(file, frame.to_csv(index=False, lineterminator="\n").encode("utf-8"))
    click.echo(f"{file}: {len(frame)} synthetic comments; scores on them say nothing of real ones")


@data.command()
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def fetch(debug: bool) -> None:
    """Download the YouTube toxicity table through kagglehub and check it."""
    from toxbench.data.fetch import fetch as fetch_table

    fetched = fetch_table()
    same = "the version that toxbench was measured on" if fetched.known else (
        "NOT the version that toxbench was measured on: its sha256 differs"
    )  # fmt: skip
    click.echo(f"{fetched.path}")
    click.echo(f"{fetched.rows} comments, {fetched.labels} labels; {same}")


def _text(comments: "Comments", facts: "Description") -> str:
    """Lay out a description for a terminal."""
    roles = ", ".join(f"{role}: {column or 'none'}" for role, column in comments.columns.items())
    shortest, median, mean, high, longest = facts.characters
    per_row = ", ".join(f"{count}: {rows}" for count, rows in facts.labels_a_row.items())
    lines = [
        f"{comments.name}: {len(comments)} rows, {len(comments.labels)} labels",
        f"Columns      {roles}",
        f"Characters   shortest {shortest:.0f}, median {median:.0f}, mean {mean:.0f}, "
        f"95 % below {high:.0f}, longest {longest:.0f}",
        f"Labels a row {per_row}",
        f"Repeats      {facts.repeated} rows have the text of an earlier row",
    ]
    if facts.groups is not None:
        count, largest, without = facts.groups
        lines.append(
            f"Groups       {count}, the largest with {largest} rows; {without} rows without one"
        )
    lines += ["", _label_table(comments, facts)]
    lines += ["", *(f"Note: {problem}" for problem in facts.problems)]
    return "\n".join(lines).rstrip()


def _label_table(comments: "Comments", facts: "Description") -> str:
    """One row for each label: support, share, and rows together with each other label."""
    from tabulate import tabulate

    numbers = [str(i) for i in range(1, len(comments.labels) + 1)]
    rows = [
        (
            number,
            label,
            facts.supports[label],
            f"{facts.supports[label] / len(comments):.1%}",
            *("." if i == j else count for j, count in enumerate(facts.together[i].tolist())),
        )
        for i, (number, label) in enumerate(zip(numbers, comments.labels, strict=True))
    ]
    headers = ("#", "label", "positives", "share", *(f"with {n}" for n in numbers))
    return tabulate(rows, headers=headers, disable_numparse=False)
