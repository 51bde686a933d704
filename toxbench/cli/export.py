"""``toxbench export``: a stored model as a folder for transformers or ONNX Runtime."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from toxbench.cli.console import echo
from toxbench.cli.options import (
    OUTPUT,
    FilePath,
    backbone_option,
    debug_option,
    plugins_option,
    results_option,
    stored_table_options,
)
from toxbench.cli.stored_table import check_table_options, read_table
from toxbench.config import results_folder
from toxbench.errors import SettingsError
from toxbench.util.text import escape_line

if TYPE_CHECKING:
    from toxbench.inference.export import LabelledTexts
    from toxbench.inference.model import Model
    from toxbench.store.cells import CellStore
    from toxbench.store.models import ModelRecord


@cloup.command(short_help="Write the best stored model for use without toxbench.")
@cloup.argument("folder", type=FilePath())
@backbone_option
@results_option
@OUTPUT.option(
    "--format", "kind", type=click.Choice(["transformers", "onnx"]), default="transformers",
    show_default=True, help="What the folder is for; onnx needs toxbench[onnx].",
)  # fmt: skip
@OUTPUT.option(
    "--quantize", type=click.Choice(["int8"]),
    help="Add a smaller ONNX file, and measure it on the test rows of --data.",
)  # fmt: skip
@stored_table_options
@plugins_option
@debug_option
def export(folder: Path, **values: Any) -> None:
    """Write the best stored model to FOLDER, for use with transformers or ONNX Runtime alone.

    transformers.pipeline("text-classification", FOLDER, top_k=None) loads it, without toxbench and
    without remote code. FOLDER/example.py predicts with ONNX Runtime, without torch. The exported
    model is compared with the stored one first; with --data, its scores and speed are as well.
    """
    from toxbench.inference.select import choose_model
    from toxbench.plugin.registry import Registry, check_plugins
    from toxbench.store.cells import find_store

    _check(values)
    check_plugins(values["plugins"])
    store = find_store(values["results"] or results_folder())
    source, record = choose_model(store, values["backbone"])
    # Only now: torch and transformers take seconds to import.
    from toxbench.inference.export import check_target
    from toxbench.inference.model import load_model

    check_target(folder)
    registry = Registry.with_item("backbones", record.key.candidate, values["plugins"])
    if values["kind"] == "onnx":
        rows = _test_rows(store, record, values)
        model = load_model(source, record, registry)
        usage = _write_onnx(model, source, folder, values["quantize"] is not None, rows)
    else:
        usage = _write_transformers(load_model(source, record, registry), source, folder)
    echo(f"Exported {escape_line(record.title)}, cell {record.key.stem}, to {folder}")
    echo(usage)


def _check(values: Mapping[str, Any]) -> None:
    """Refuse options that do not go together, and a missing package; raises `SettingsError`."""
    check_table_options(values)
    if values["kind"] == "onnx":
        for name in ("onnx", "onnxruntime", "onnxscript"):
            if find_spec(name) is None:
                raise SettingsError(
                    f"--format onnx needs the package {name}, which is not installed; "
                    'first: pip install "toxbench[onnx]"'
                )
    elif values["quantize"] or values["data"]:
        name = "--quantize" if values["quantize"] else "--data"
        raise SettingsError(f"{name} is for ONNX files; add --format onnx")


def _test_rows(
    store: "CellStore", record: "ModelRecord", values: Mapping[str, Any]
) -> "LabelledTexts | None":
    """Return the test rows of a model's fold, if they are needed; raises as `read_table`."""
    if not values["quantize"] and values["data"] is None:
        return None
    from toxbench.inference.export import read_test_rows

    return read_test_rows(store, record.key.fold, read_table(store.protocol(), values))


def _write_onnx(
    model: "Model", source: Path, folder: Path, quantize: bool, rows: "LabelledTexts | None"
) -> str:
    """Write and print the measurement, if there is one; return how to use the folder."""
    from toxbench.cli.output import print_tables
    from toxbench.inference.onnx import export_onnx
    from toxbench.plugin.registry import Registry

    table = export_onnx(model, source, folder, quantize, rows)
    if table is not None:
        print_tables([table], Registry.built_in(), None)
    return f'python {folder / "example.py"} "some comment"'


def _write_transformers(model: "Model", source: Path, folder: Path) -> str:
    """Write; return how to use the folder."""
    from toxbench.inference.export import export as write
    from toxbench.inference.export import truncation_note

    write(model, source, folder)
    call = f'transformers.pipeline("text-classification", {str(folder)!r}, top_k=None)'
    return f"{call}\n{truncation_note(model.record)}"
