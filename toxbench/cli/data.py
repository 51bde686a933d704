"""``toxbench data``: look at a table, check it, write the sample, fetch the YouTube table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxbench.cli.console import echo
from toxbench.cli.options import (
    FilePath,
    column_options,
    comma_list,
    plugins_option,
    settings_from,
    settings_options,
    used,
)
from toxbench.errors import SettingsError
from toxbench.settings import RunSettings, SplitSettings
from toxbench.util.text import escape_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from toxbench.data.audit import Description
    from toxbench.data.protocol import Split
    from toxbench.data.table import TextDataset


@click.group()
def data() -> None:
    """Look at tables, and get some."""


@data.command()
@click.argument("file", type=FilePath())
@column_options
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def show(file: Path, debug: bool, **values: Any) -> None:
    """Print what the harness sees in FILE: no comment, only numbers."""
    from toxbench.config import build_settings
    from toxbench.data.audit import describe
    from toxbench.data.table import read_comments
    from toxbench.settings import ColumnSettings

    comments = read_comments(file, build_settings(ColumnSettings, used(ColumnSettings, values)))
    echo(_text(comments, describe(comments)))


@data.command()
@click.argument("file", type=FilePath())
@column_options
@click.option(
    "--backbones",
    metavar="A,B,C",
    callback=comma_list,
    help="Count the comments that these cut; see: toxbench backbones.",
)
@click.option(
    "--weights",
    multiple=True,
    metavar="SOURCE",
    help="Of --backbones: auto, hub, stand-in, or NAME=PATH; may be repeated. [auto]",
)
@plugins_option
@settings_options(SplitSettings)
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def check(file: Path, debug: bool, **values: Any) -> None:
    """Look for what makes scores on FILE look better than they are; print no comment.

    Texts and groups on both sides of the split, equal texts with different labels, labels that
    imply others or never change, comments that are cut. Finding some is no error.
    """
    for name in ("weights", "plugins"):
        if values[name] not in {None, ()} and not values["backbones"]:
            raise SettingsError(f"--{name} is for --backbones; name some")
    settings = settings_from({**values, "data": file, "config": None})
    from toxbench.benchmark.validate import split_settings
    from toxbench.data.audit import audit
    from toxbench.data.splits import draw_folds
    from toxbench.data.table import read_comments
    from toxbench.report.audit import audit_lines

    split = split_settings(settings)
    comments = read_comments(file, settings.columns)
    folds = draw_folds(comments, split)
    echo(_headline(comments, split, folds))
    for line in audit_lines(audit(comments, folds), lambda row: _row_name(comments, row)):
        echo(line)
    truncated = _truncation(settings, comments) if values["backbones"] else _TRUNCATION_HINT
    for line in truncated:
        echo(escape_line(line))


@data.command()
@click.argument("file", metavar="OUT.csv", type=FilePath(dir_okay=False))
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def sample(file: Path, debug: bool) -> None:
    """Write the built-in synthetic sample to OUT.csv."""
    from toxbench.data.synthetic import sample_frame
    from toxbench.util.atomic import write_atomically

    frame = sample_frame()
    write_atomically(file, frame.to_csv(index=False, lineterminator="\n").encode("utf-8"))
    echo(f"{file}: {len(frame)} synthetic comments; scores on them say nothing of real ones")


@data.command()
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def fetch(debug: bool) -> None:
    """Download the YouTube toxicity table through kagglehub and check it."""
    from toxbench.data.fetch import fetch as fetch_table

    fetched = fetch_table()
    same = "the version that toxbench was measured on" if fetched.known else (
        "NOT the version that toxbench was measured on: its sha256 differs"
    )  # fmt: skip
    echo(f"{fetched.path}")
    echo(f"{fetched.rows} comments, {fetched.labels} labels; {same}")


_TRUNCATION_HINT = ("Cut comments: not counted; --backbones bert,distilbert counts them",)


def _headline(comments: "TextDataset", split: SplitSettings, folds: "Sequence[Split]") -> str:
    tested = sum(len(fold.test) for fold in folds)
    many = f" in {len(folds)} folds" if len(folds) > 1 else ""
    name = escape_line(comments.name)
    dropped = f" ({len(comments.dropped)} without a text left out)" if comments.dropped else ""
    return (
        f"{name}: {len(comments)} rows{dropped}, {tested} of them test rows{many}; "
        f"--split {split.split}"
    )


def _row_name(comments: "TextDataset", row: int) -> str:
    """Call a row by its id; by its number, counted from 1, where the id is none to be shown.

    It may be long, or hold the comment: the text column can be named for both.
    """
    row_id = comments.ids[row]
    if comments.columns["id"] is None or len(row_id) > 40 or comments.texts[row] in row_id:
        return f"row {comments.numbers[row]}"
    return row_id


def _truncation(settings: RunSettings, comments: "TextDataset") -> "Iterator[str]":
    """Yield how many comments each backbone cuts, or why that is not known."""
    from toxbench.benchmark.validate import check_settings
    from toxbench.plugin.registry import Registry

    registry = Registry.discover(settings.plugins)
    check_settings(settings, registry)
    # Only now: torch and transformers take seconds to import.
    from toxbench.benchmark.truncation import Truncation, truncations

    yield "Cut comments: what is beyond --max-length tokens, a backbone never sees"
    for found in truncations(settings, comments, registry):
        if isinstance(found, Truncation):
            yield (
                f"  {found.backbone} cuts {found.share:.1%} of {len(comments)} comments at "
                f"{found.max_length} tokens ({found.weights})"
            )
        else:
            yield f"  {found.backbone}: unknown, {found.reason}"


def _text(comments: "TextDataset", facts: "Description") -> str:
    """Lay out a description for a terminal."""
    roles = ", ".join(
        f"{role}: {escape_line(column or 'none')}" for role, column in comments.columns.items()
    )
    shortest, median, mean, high, longest = facts.characters
    per_row = ", ".join(f"{count}: {rows}" for count, rows in facts.labels_a_row.items())
    lines = [
        f"{escape_line(comments.name)}: {len(comments)} rows, {len(comments.labels)} labels",
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
    lines += ["", *(f"Note: {escape_line(problem)}" for problem in facts.problems)]
    return "\n".join(lines).rstrip()


def _label_table(comments: "TextDataset", facts: "Description") -> str:
    """One row for each label: support, share, and rows together with each other label."""
    from tabulate import tabulate

    numbers = [str(i) for i in range(1, len(comments.labels) + 1)]
    rows = [
        (
            number,
            escape_line(label),
            facts.supports[label],
            f"{facts.supports[label] / len(comments):.1%}",
            *("." if i == j else count for j, count in enumerate(facts.together[i].tolist())),
        )
        for i, (number, label) in enumerate(zip(numbers, comments.labels, strict=True))
    ]
    headers = ("#", "label", "positives", "share", *(f"with {n}" for n in numbers))
    return tabulate(rows, headers=headers, disable_numparse=[1])
