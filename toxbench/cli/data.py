"""``toxbench data``: look at a table, check it, write the sample, fetch the YouTube table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloup

from toxbench.cli.console import echo
from toxbench.cli.options import (
    SPLIT,
    TABLE,
    FilePath,
    backbones_option,
    column_options,
    data_option,
    debug_option,
    plugins_option,
    settings_from,
    settings_options,
    used,
    weights_option,
)
from toxbench.errors import SettingsError
from toxbench.settings import RunSettings, SplitSettings
from toxbench.util.text import escape_line, list_items

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toxbench.data.audit import Description
    from toxbench.data.load import SplitDataset
    from toxbench.data.table import TextDataset


_TRUNCATION_HINT = ("Cut comments: not counted; --backbones bert,distilbert counts them",)


@cloup.group()
def data() -> None:
    """Describe, check, write or download tables."""


@data.command()
@data_option(TABLE)
@column_options
@debug_option
def show(data: Any, **values: Any) -> None:
    """Describe the table in FILE in numbers, without printing comments."""
    from toxbench.config import build_settings
    from toxbench.data.audit import describe
    from toxbench.data.table import read_comments
    from toxbench.settings import ColumnSettings

    columns = build_settings(ColumnSettings, used(ColumnSettings, values))
    comments = read_comments(_required(data), columns)
    echo(_text(comments, describe(comments)))


@data.command()
@data_option(TABLE)
@column_options
@backbones_option
@weights_option
@plugins_option
@settings_options(SplitSettings, SPLIT)
@debug_option
def check(data: Any, **values: Any) -> None:
    """Check FILE for reasons why scores on it would be too high, without printing comments.

    Texts and groups on both sides of the split, equal texts with different labels and the scores
    that they make impossible, labels that imply others or never change, and, with --backbones,
    comments that are cut. Problems that are found do not change the exit code.
    """
    for name in ("weights", "plugins"):
        if values[name] not in {None, ()} and not values["backbones"]:
            raise SettingsError(f"--{name} is for --backbones; name some")
    file = _required(data)
    settings = settings_from({**values, "data": file})
    from toxbench.benchmark.validate import resolve_split
    from toxbench.data.audit import audit
    from toxbench.data.duplicates import number_copies
    from toxbench.data.load import load_dataset
    from toxbench.evaluation.label_errors import label_noise
    from toxbench.report.audit import audit_lines, label_noise_lines

    split = resolve_split(settings)
    source = load_dataset(file, settings.columns, split, frozenset(settings.split))
    comments = source.comments
    echo(_headline(source))
    for line in audit_lines(audit(comments, source.folds), lambda row: _row_name(comments, row)):
        echo(line)
    for line in label_noise_lines(label_noise(comments.codes, number_copies(comments))):
        echo(line)
    truncated = _truncation(settings, comments) if values["backbones"] else _TRUNCATION_HINT
    for line in truncated:
        echo(escape_line(line))


@data.command()
@cloup.argument("file", metavar="OUT.csv", type=FilePath(dir_okay=False))
@debug_option
def sample(file: Path) -> None:
    """Write the built-in synthetic sample to OUT.csv."""
    from toxbench.data.samples import sample_frame
    from toxbench.util.atomic import write_atomically

    frame = sample_frame()
    write_atomically(file, frame.to_csv(index=False, lineterminator="\n").encode("utf-8"))
    echo(f"{file}: {len(frame)} synthetic comments; scores on them do not apply to real ones")


@data.command()
@debug_option
def fetch() -> None:
    """Download the YouTube toxicity table through kagglehub and check it."""
    from toxbench.data.samples import fetch as fetch_table

    path, comments, is_known_version = fetch_table()
    version = "the version that toxbench was measured on"
    if not is_known_version:
        version = f"NOT {version}: its sha256 differs"
    echo(str(path))
    echo(f"{len(comments)} comments, {len(comments.labels)} labels; {version}")


def _required(table: Any) -> Any:
    if table is None:
        raise SettingsError("no table is given; add FILE")
    return table


def _headline(source: "SplitDataset") -> str:
    comments, folds = source.comments, source.folds
    tested = sum(len(fold.test) for fold in folds)
    many = f" in {len(folds)} folds" if len(folds) > 1 else ""
    count = len(comments.dropped_rows)
    dropped = f" ({count} left out)" if count else ""
    return (
        f"{escape_line(comments.name)}: {len(comments)} rows{dropped}, {tested} of them test rows"
        f"{many}; split: {escape_line(source.origin)}"
    )


def _row_name(comments: "TextDataset", row: int) -> str:
    """Return a row's id, or its number, counted from 1, if the id may hold the comment."""
    row_id = comments.ids[row]
    if comments.columns["id"] is None or len(row_id) > 40 or comments.texts[row] in row_id:
        return f"row {comments.row_numbers[row]}"
    return row_id


def _truncation(settings: RunSettings, comments: "TextDataset") -> "Iterator[str]":
    """Yield how many comments each backbone cuts, or why that is not known."""
    from toxbench.benchmark.validate import resolve
    from toxbench.plugin.registry import Registry

    run = resolve(settings, Registry.discover(settings.plugins))
    # Only now: torch and transformers take seconds to import.
    from toxbench.benchmark.trainer_factory import Truncation, truncations

    yield "Cut comments: what is beyond --max-length tokens, a backbone never sees"
    for result in truncations(run, comments):
        if isinstance(result, Truncation):
            yield (
                f"  {result.backbone} cuts {result.share:.1%} of {len(comments)} comments at "
                f"{result.max_length} tokens ({result.weights})"
            )
        else:
            yield f"  {result.backbone}: unknown, {result.reason}"


def _text(comments: "TextDataset", facts: "Description") -> str:
    """Format a description for a terminal."""
    roles = ", ".join(f"{role}: {column or 'none'}" for role, column in comments.columns.items())
    shortest, median, mean, high, longest = facts.text_lengths
    per_row = list_items([f"{count}: {rows}" for count, rows in facts.rows_by_label_count.items()])
    lines = [
        f"{escape_line(comments.name)}: {len(comments)} rows, {len(comments.labels)} labels",
        f"Columns      {escape_line(roles)}",
        f"Characters   shortest {shortest:.0f}, median {median:.0f}, mean {mean:.0f}, "
        f"95 % below {high:.0f}, longest {longest:.0f}",
        f"Labels a row {per_row}",
        f"Repeats      {facts.repeated_rows} rows have the text of an earlier row",
    ]
    if facts.groups is not None:
        count, largest, without = facts.groups
        lines.append(
            f"Groups       {count}, the largest with {largest} rows; {without} rows without one"
        )
    lines += ["", _label_table(comments, facts)]
    lines += ["", *(f"Note: {escape_line(problem)}" for problem in facts.notes)]
    return "\n".join(lines).rstrip()


def _label_table(comments: "TextDataset", facts: "Description") -> str:
    """One row for each shown label: support, share, and rows together with each other label."""
    import numpy as np
    from tabulate import tabulate

    from toxbench.util.many_labels import select_labels

    supports = list(facts.supports.values())
    shown = select_labels(supports, len(comments))
    counts = np.empty((len(supports), 0), dtype=object)
    if facts.co_occurrences is not None:
        counts = facts.co_occurrences.astype(object)
        np.fill_diagonal(counts, ".")
    rows = [
        (str(i + 1), escape_line(comments.labels[i]), supports[i],
         f"{supports[i] / len(comments):.1%}", *counts[i])
        for i in shown.places
    ]  # fmt: skip
    pairs = [f"with {i}" for i in range(1, counts.shape[1] + 1)]
    table = tabulate(rows, ("#", "label", "positives", "share", *pairs), disable_numparse=[1])
    return "\n".join([table, *shown.notes])
