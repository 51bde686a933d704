"""The contract of a tracker: who is told of a run's epochs and cells while it goes on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toxbench.records import CellRecord, EpochRecord, RunRecord

Fact = str | int | float | bool
_ALWAYS = "0.5"  # the thresholds rule whose scores are logged in full
_HEADLINES = ("micro_f1", "subset_accuracy")


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """Somewhere to log to: ``toxbench run --trackers NAME``. It is off until it is asked for.

    ``start(folder)`` is called once, in a process of the tracker's own, and returns an object
    whose methods, marked ``@hookimpl``, are event hooks: ``toxbench_run_started(run)``,
    ``toxbench_epoch_finished(cell, epoch)``, ``toxbench_cell_finished(result)``. If it has a
    ``close()``, that is called at the end. What any of them raises is warned of once, and what
    they print goes to stderr; neither harms the run.

    A cell that trains again, after a kill say, begins again with epoch 1: what was logged of it
    before is to be replaced. Cells that were stored while nobody told this tracker are told by the
    next run, epoch by epoch.

    Attributes:
        name: what users write after ``--trackers``, and of the folder it writes to.
        start: makes the listener. Import what is heavy in there.
        needs: package that ``start`` imports; where it is missing, asking for the tracker is
            refused. "": none.
        install: the command that installs it.
        view: the command that shows what was logged; ``{folder}`` is replaced.
        patience: seconds that one event may take; a tracker that takes longer is ended.
    """

    name: str
    start: Callable[[Path], object]
    needs: str = ""
    install: str = ""
    view: str = ""
    patience: float = 60.0


def epoch_numbers(epoch: EpochRecord) -> dict[str, float]:
    """Return what is to be logged of an epoch, by name; what is undefined is left out."""
    validation = {f"validation/{name}": value for name, value in epoch.validation.items()}
    return _known(validation | {"train/loss": epoch.train_loss, "train/seconds": epoch.seconds})


def cell_numbers(result: CellRecord) -> dict[str, float]:
    """Return the final scores of a cell, by name: all at threshold 0.5, the gaps, and the cost.

    ``gap`` is train minus test, of the same checkpoint. Of other threshold rules there are the
    two headline scores, such as ``test/micro_f1.global``.
    """
    numbers: dict[str, float | None] = {
        f"{part}/{name}": value
        for part, scores in result.metrics[_ALWAYS].items()
        for name, value in scores.items()
    }
    for name in _HEADLINES:
        train, test = numbers.get(f"train/{name}"), numbers.get(f"test/{name}")
        numbers[f"gap/{name}"] = None if train is None or test is None else train - test
        for rule in result.metrics.keys() - {_ALWAYS}:
            numbers[f"test/{name}.{rule}"] = result.metrics[rule]["test"].get(name)
    numbers |= {f"cost/{name}": value for name, value in result.cost.model_dump().items()}
    return _known(numbers | {"best_epoch": result.best_epoch})


def cell_facts(result: CellRecord, run: RunRecord | None) -> dict[str, Fact]:
    """Return what a cell was: settings, origin, and what to know before quoting its scores.

    Args:
        result: the cell.
        run: that it is told in; None: that is not known, and so is left out.
    """
    settings = result.settings.model_dump() if result.settings else {}
    weights = result.weights
    about = run.model_dump(include={"table", "synthetic", "exploratory"}) if run else {}
    facts = {
        "candidate": result.key.candidate,
        "fold": result.key.fold,
        "seed": result.key.seed,
        "kind": result.kind,
        "tuned": result.tuning is not None,
        "weights": weights.label if weights else None,
        "stand_in": weights is not None and weights.source == "stand-in",
        "constant": result.constant,
        "parameters": result.parameters,
        "device": result.environment.device,
        "precision": result.environment.precision,
        "protocol": result.fingerprint[:12],
        "from": result.distribution,
        **about,
        **{f"settings.{name}": value for name, value in settings.items()},
    }
    return {name: value for name, value in facts.items() if value is not None}


def _known(numbers: dict[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if value is not None}
