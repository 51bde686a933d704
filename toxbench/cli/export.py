"""``toxbench export``: a stored model as a plain folder of Hugging Face."""

from pathlib import Path

import click

from toxbench.cli.console import echo
from toxbench.cli.options import FilePath, plugins_option, results_option
from toxbench.util.text import escape_line


@click.command(short_help="Write the best stored model for transformers alone.")
@click.argument("folder", type=FilePath())
@click.option("--backbone", metavar="NAME", help="Whose model. [the best on validation rows]")
@results_option
@plugins_option
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def export(
    folder: Path,
    backbone: str | None,
    results: Path | None,
    plugins: tuple[str, ...] | None,
    debug: bool,
) -> None:
    """Write the best stored model to FOLDER, for transformers alone.

    transformers.pipeline("text-classification", FOLDER, top_k=None) reads it, without toxbench and
    without any code that comes with it. The folder is checked against the stored model first.
    """
    from toxbench.inference.select import choose_model
    from toxbench.plugin.registry import Registry
    from toxbench.store.cells import find_store

    registry = Registry.discover(plugins)
    source, record = choose_model(find_store(results or Path("results")), backbone)
    # Only now: torch and transformers take seconds to import.
    from toxbench.inference.export import check_target
    from toxbench.inference.export import export as write
    from toxbench.inference.model import load_model

    check_target(folder)
    write(load_model(source, record, registry), source, folder)
    echo(f"{escape_line(record.title)}, cell {record.key.stem}, is in {folder}")
    echo(f'transformers.pipeline("text-classification", {str(folder)!r}, top_k=None)')
    echo(f"Comments of more than {record.max_length} tokens: call it with truncation=True.")
