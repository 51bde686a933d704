"""``toxbench predict``: the labels of comments by a stored model."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from toxbench.cli.console import echo
from toxbench.cli.options import (
    DATA,
    MODELS,
    OUTPUT,
    SCALE,
    FilePath,
    backbone_option,
    debug_option,
    device_option,
    format_option,
    plugins_option,
    results_option,
    text_options,
    thresholds_option,
    used,
)
from toxbench.config import build_settings, option_name, results_folder
from toxbench.errors import SettingsError
from toxbench.plugin.contracts import Table
from toxbench.plugin.registry import Registry, check_plugins
from toxbench.settings import ColumnSettings
from toxbench.util.atomic import table_mode
from toxbench.util.text import escape_line

if TYPE_CHECKING:
    from toxbench.inference.model import TextClassifier
    from toxbench.inference.select import ModelChoice
    from toxbench.inference.tables import Block

_STDIN = Path("-")


@cloup.command(short_help="Label comments with the best stored model.")
@cloup.argument("comments", metavar="[COMMENT]...", nargs=-1)
@DATA.option(
    "--input", "source", type=FilePath(), metavar="FILE",
    help="A table file of any kind and size; - for lines of standard input.",
)  # fmt: skip
@text_options
@backbone_option
@MODELS.option(
    "--average", is_flag=True,
    help="Average the models of all seeds, kept by a run with --save-models all.",
)  # fmt: skip
@plugins_option
@OUTPUT.option(
    "--output", "target", type=FilePath(), metavar="FILE",
    help="CSV, TSV, Parquet or JSON lines for --input. [standard output, as CSV]",
)  # fmt: skip
@OUTPUT.option("--with-text", is_flag=True, help="Write the comments as a column.")
@thresholds_option("Which of the model's thresholds to use.")
@results_option
@format_option
@debug_option
@SCALE.option(
    "--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True,
    help="fp32 gives the exported model's numbers; bf16 can be faster.",
)  # fmt: skip
@device_option
def predict(comments: tuple[str, ...], **values: Any) -> None:
    """Predict the labels of COMMENTs, or of the comments in a file.

    The model is the best one of the newest results, by validation rows. Comments are written only
    with --with-text.
    """
    _check(comments, values)
    check_plugins(values["plugins"])
    if values["source"] is None:
        _predict_words(comments, values)
    else:
        _predict_file(values)


def _check(comments: tuple[str, ...], values: dict[str, Any]) -> None:
    """Refuse options that do not go together; raises `SettingsError`."""
    source, target = values["source"], values["target"]
    if bool(comments) == (source is not None):
        raise SettingsError("give comments, or a file of them with --input; one of the two")
    if source is None:
        names = [*used(ColumnSettings, values), *(["with_text"] if values["with_text"] else [])]
        names += [] if target is None else ["output"]
        if names:
            raise SettingsError(f"{option_name(names[0])} is for --input; add --input FILE")
    elif values["format_name"] is not None:
        raise SettingsError("--format is for comments; the ending of --output names a file's kind")


def _predict_words(comments: tuple[str, ...], values: dict[str, Any]) -> None:
    from toxbench.inference.model import check_comments

    check_comments(comments)
    format_name = values["format_name"] or "plain"
    registry = Registry.with_item("formats", format_name, values["plugins"])
    render = registry.report_format(format_name).item.render
    chosen, thresholds, load = _chosen(values)
    probabilities = load().predict_probabilities(comments)
    found = [
        (number, label, float(str(probability)), bool(probability > threshold))
        for number, row in enumerate(probabilities, start=1)
        for label, probability, threshold in zip(chosen.record.labels, row, thresholds, strict=True)
    ]
    names = ("comment", "label", "probability", "predicted")
    first = 0 if len(comments) > 1 else 1  # one comment needs no number
    table = Table(
        title=f"{escape_line(chosen.title)}, thresholds {values['rule']}",
        headers=names[first:],
        rows=tuple(
            (str(number), escape_line(label), f"{probability:.3f}", "yes" if yes else "no")[first:]
            for number, label, probability, yes in found
        ),
        notes=_notes(chosen),
        records=tuple(dict(zip(names, row, strict=True)) for row in found),
    )
    echo(render(table).strip())


def _predict_file(values: dict[str, Any]) -> None:
    from toxbench.inference.model import predict_blocks
    from toxbench.inference.tables import check_output, csv_writer, open_output

    source, target = values["source"], values["target"]
    if target is not None:
        check_output(target, source if source != _STDIN else None)
    blocks, total = _blocks(source, build_settings(ColumnSettings, used(ColumnSettings, values)))
    chosen, thresholds, load = _chosen(values)
    classifier, record = load(), chosen.record
    if target is None:
        write = csv_writer(lambda text: echo(text.removesuffix("\n")))
        predict_blocks(classifier, record, thresholds, blocks, write, with_text=values["with_text"])
        return
    table = source if values["with_text"] and source != _STDIN else None
    with open_output(target, table_mode(table)) as write, _progress(total) as advance:
        count = predict_blocks(
            classifier, record, thresholds, blocks, write,
            with_text=values["with_text"], on_block=advance,
        )  # fmt: skip
    echo(f"{target}: predictions of {escape_line(chosen.title)} for {count} comments")
    for note in _notes(chosen):
        echo(note)


def _blocks(source: Path, columns: ColumnSettings) -> "tuple[Iterator[Block], int | None]":
    """Return the comments, and how many there are; None: that is not known before their end."""
    from toxbench.inference.tables import CommentsFile, read_lines

    if source == _STDIN:
        return read_lines(sys.stdin.buffer, columns), None
    file = CommentsFile(source, columns)
    return file.blocks(), file.count()


def _chosen(
    values: dict[str, Any],
) -> "tuple[ModelChoice, tuple[float, ...], Callable[[], TextClassifier]]":
    """Return the models that are used, their thresholds, and a function that loads them."""
    from toxbench.inference.select import choose_models
    from toxbench.store.cells import find_store

    store = find_store(values["results"] or results_folder())
    chosen = choose_models(store, values["backbone"], values["average"])
    thresholds = chosen.rule_thresholds(values["rule"])

    def load() -> "TextClassifier":
        from toxbench.inference.model import load_classifier
        from toxbench.training.device import choose_device

        registry = Registry.with_item("backbones", chosen.record.key.candidate, values["plugins"])
        device = choose_device(values["device"] or "auto", values["precision"])
        return load_classifier(chosen.models, registry, device)

    return chosen, thresholds, load


def _notes(chosen: "ModelChoice") -> tuple[str, ...]:
    """Return the limits of a model that a reader of its predictions must know."""
    record = chosen.record
    stems = ", ".join(record.key.stem for _, record in chosen.models)
    texts = [f"Saved as {escape_line(stems)}; intended use and limits are in README.md."]
    if record.synthetic:
        texts.append("It learnt from the synthetic sample: it knows nothing of real comments.")
    if record.weights.source == "stand-in":
        texts.append("It started from a stand-in, not from the checkpoint of that name.")
    return tuple(texts)


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield what moves a bar on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    with Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
        Remaining(), console=Console(stderr=True),
    ) as progress:  # fmt: skip
        task = progress.add_task("comments", total=total)
        yield lambda count: progress.update(task, advance=count)
