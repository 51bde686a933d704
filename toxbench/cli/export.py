"""``toxbench export``: a stored model as a plain folder of Hugging Face."""

from pathlib import Path

import cloup

from toxbench.cli.console import echo
from toxbench.cli.options import (
    FilePath,
    backbone_option,
    debug_option,
    plugins_option,
    results_option,
)
from toxbench.config import results_folder
from toxbench.util.text import escape_line


@cloup.command(short_help="Write the best stored model for use without toxbench.")
@cloup.argument("folder", type=FilePath())
@backbone_option
@results_option
@plugins_option
@debug_option
def export(
    folder: Path,
    backbone: str | None,
    results: Path | None,
    plugins: tuple[str, ...] | None,
) -> None:
    """Write the best stored model to FOLDER, for use with transformers alone.

    transformers.pipeline("text-classification", FOLDER, top_k=None) loads it, without toxbench and
    without remote code. The exported model is compared with the stored one first.
    """
    from toxbench.inference.select import choose_model
    from toxbench.plugin.registry import Registry, check_plugins
    from toxbench.store.cells import find_store

    check_plugins(plugins)
    source, record = choose_model(find_store(results or results_folder()), backbone)
    # Only now: torch and transformers take seconds to import.
    from toxbench.inference.export import check_target, truncation_note
    from toxbench.inference.export import export as write
    from toxbench.inference.model import load_model

    check_target(folder)
    registry = Registry.with_item("backbones", record.key.candidate, plugins)
    write(load_model(source, record, registry), source, folder)
    echo(f"Exported {escape_line(record.title)}, cell {record.key.stem}, to {folder}")
    echo(f'transformers.pipeline("text-classification", {str(folder)!r}, top_k=None)')
    echo(truncation_note(record))
