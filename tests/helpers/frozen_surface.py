"""The names, codes and bytes that users depend on, as texts.

``python tests/helpers/frozen_surface.py`` writes them to tests/frozen/.
tests/test_frozen.py compares.
"""

import inspect
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from click.testing import CliRunner
from measured import Table

import toxbench
from toxbench import errors, records
from toxbench.cli.main import cli
from toxbench.evaluation.definitions import RULES
from toxbench.plugin import hookspecs
from toxbench.records import LabelScores, StoredRecord
from toxbench.settings import FrozenModel
from toxbench.store.cells import CellStore
from toxbench.store.files import write_rows

FOLDER = Path(__file__).parents[1] / "frozen"
SUPPORTS = {"IsA": 6, "IsB": 3, "IsC": 1, "IsNever": 0}


def write_reference_cells(folder: Path) -> CellStore:
    """Store cells of three candidates, five seeds and two folds, whose scores are made up."""
    table = Table(120, folds=2)
    labels = tuple(
        LabelScores(
            label=label, support=support, threshold=0.5, precision=0.25, recall=0.75, f1=0.375,
            average_precision=0.5 if support else None, roc_auc=None, prevalence=0.5, mcc=0.0,
        brier=0.25, expected_calibration_error=0.0,
        )
        for label, support in SUPPORTS.items()
    )  # fmt: skip
    store = CellStore(folder)
    store.protocol_path.write_text(table.protocol.model_dump_json(), encoding="utf-8")
    write_rows(folder, table.comments)
    rules = dict.fromkeys(RULES, labels)
    cells = [
        *table.cells("bert", range(5), skill=0.45, per_label=rules),
        *table.cells("distilbert", range(5), skill=0.3, tuned=True, per_label=rules),
        *table.cells("tfidf-logreg", (0,), skill=0.1, per_label=rules, kind="baseline"),
    ]
    for record, probabilities in cells:
        store.write(record, probabilities)
    return store


def options() -> str:
    """Every command with its arguments and options, one a line."""
    return "\n".join(_command_lines("toxbench", cli)) + "\n"


def _command_lines(name: str, command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        yield f"{name} {' '.join(sorted([*parameter.opts, *parameter.secondary_opts]))}"
    if isinstance(command, click.Group):
        for sub, member in sorted(command.commands.items()):
            yield from _command_lines(f"{name} {sub}", member)


def exit_codes() -> str:
    """Every error with its exit code."""
    codes = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.ToxbenchError)
    }
    return "".join(f"{name} {code}\n" for name, code in sorted(codes.items()))


def hooks() -> str:
    """Every hook with its arguments."""
    hook_functions = {n: f for n, f in vars(hookspecs).items() if n.startswith("toxbench_")}
    return "".join(f"{name}{_arguments(hook)}\n" for name, hook in sorted(hook_functions.items()))


def public_names() -> str:
    """Every public name; functions with their arguments."""
    items = {name: getattr(toxbench, name) for name in toxbench.__all__}
    return "".join(
        f"{name}{_arguments(item) if inspect.isfunction(item) else ''}\n"
        for name, item in items.items()
    )


def stored_fields() -> str:
    """Every field of every record that is stored."""
    kinds = {
        name: kind
        for name, kind in vars(records).items()
        if isinstance(kind, type)
        and issubclass(kind, FrozenModel)
        and kind not in {FrozenModel, StoredRecord}
    }
    return "".join(
        f"{name}.{field}\n" for name, kind in sorted(kinds.items()) for field in kind.model_fields
    )


def _arguments(function: Callable[..., object]) -> str:
    return f"({', '.join(inspect.signature(function).parameters)})"


def leaderboard(format_name: str) -> Callable[[], str]:
    """Return a function that prints the leaderboard of the reference cells in a format."""

    def render() -> str:
        with tempfile.TemporaryDirectory() as folder:
            write_reference_cells(Path(folder))
            words = ["leaderboard", folder, "--format", format_name, "--plugins", "none"]
            result = CliRunner().invoke(cli, words, catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    return render


SURFACES: dict[str, Callable[[], str]] = {
    "options.txt": options,
    "exit-codes.txt": exit_codes,
    "hooks.txt": hooks,
    "public-names.txt": public_names,
    "stored-fields.txt": stored_fields,
    "leaderboard.md": leaderboard("markdown"),
    "leaderboard.csv": leaderboard("csv"),
    "leaderboard.json": leaderboard("json"),
    "leaderboard.txt": leaderboard("plain"),
}

if __name__ == "__main__":
    for file, surface in SURFACES.items():
        (FOLDER / file).write_text(surface(), encoding="utf-8")
    sys.exit(0)
