"""Plots of a search as SVG: history, importances, parallel coordinates, slices."""

import io
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toxbench.plugin.contracts import Table
from toxbench.records import TrialRecord, TunedSettings, TuningRecord
from toxbench.report.palette import BLUE, GREY, RED
from toxbench.settings import TrainSettings
from toxbench.util.text import escape_line

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_SCORE = "micro average precision (inner validation)"
_COLUMNS = 4  # of slices side by side


def importances(study: "optuna.Study") -> dict[str, float]:
    """Return the share of each hyperparameter in what the complete trials' scores differ by.

    Optuna's functional ANOVA (Hutter et al. 2014), over the complete trials and hyperparameters
    that all drawn ones have; the default settings count where they lie inside the space. Empty
    where there are too few trials, or all scores are equal.
    """
    import optuna

    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    drawn = [trial for trial in trials if "default" not in trial.user_attrs]
    params = sorted(set.intersection(*(set(trial.params) for trial in drawn)) if drawn else ())
    whole = [trial for trial in trials if trial.params.keys() >= set(params)]
    varied = any(len({trial.params[name] for trial in whole}) > 1 for name in params)
    if not varied or len({trial.value for trial in whole}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, and few trials
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return optuna.importance.get_param_importances(study, evaluator=evaluator, params=params)


def study_plots(records: Sequence[TrialRecord], shares: Mapping[str, float]) -> dict[str, bytes]:
    """Draw a search.

    Args:
        records: its trials.
        shares: see `importances`; where they are empty, only the history is drawn.

    Returns:
        name -> SVG, the same for the same records.
    """
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "toxbench", "svg.fonttype": "none"}):
        return {name: _svg(figure) for name, figure in study_figures(records, shares).items()}


def study_figures(
    records: Sequence[TrialRecord], shares: Mapping[str, float]
) -> "dict[str, Figure]":
    """Draw a search; arguments and names as in `study_plots`."""
    complete = [record for record in records if record.value is not None]
    figures = {"history": _history(records)}
    if shares:
        dimensions = [_Dimension(name, complete) for name in shares]
        figures["importance"] = _importance(shares)
        figures["parallel-coordinates"] = _parallel(dimensions, complete)
        figures["slices"] = _slices(dimensions, complete)
    return figures


@dataclass(frozen=True)
class _Dimension:
    """One hyperparameter of some trials, as positions on an axis."""

    name: str
    records: Sequence[TrialRecord]

    @property
    def values(self) -> list[Any]:
        """Of each trial; None where it has none."""
        return [record.params.get(self.name) for record in self.records]

    @cached_property
    def distribution(self) -> dict[str, Any]:
        """Optuna's, of the first trial that has one."""
        texts = (r.distributions[self.name] for r in self.records if self.name in r.distributions)
        parsed: dict[str, Any] = json.loads(next(texts))
        return parsed

    @property
    def choices(self) -> list[Any]:
        """The values of a choice; of a range none."""
        return list(self.distribution["attributes"].get("choices", []))

    @property
    def log(self) -> bool:
        """Whether the range is logarithmic."""
        return bool(self.distribution["attributes"].get("log", False))

    @property
    def positions(self) -> npt.NDArray[np.float64]:
        """Where each trial is: its value, the number of its choice, or NaN."""
        values = self.values
        if self.choices:
            values = [None if v is None else self.choices.index(v) for v in values]
        return np.array([math.nan if v is None else float(v) for v in values])

    @property
    def scaled(self) -> npt.NDArray[np.float64]:
        """Positions from 0 to 1 within the whole range."""
        low, high = self.limits
        positions = self.positions
        if self.log:
            low, high, positions = math.log(low), math.log(high), np.log(positions)
        return (positions - low) / (high - low) if high > low else np.full(len(positions), 0.5)

    @property
    def limits(self) -> tuple[float, float]:
        """Both ends of the range."""
        if self.choices:
            return 0.0, float(len(self.choices) - 1)
        attributes = self.distribution["attributes"]
        return float(attributes["low"]), float(attributes["high"])


def _history(records: Sequence[TrialRecord]) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(7, 4)
    shown = [record for record in records if record.value is not None or record.epoch_scores]
    for state, marker, color in (("complete", "o", BLUE), ("pruned", "x", GREY)):
        some = [record for record in shown if record.state == state]
        scores = [_last_score(record) for record in some]
        axes.scatter([r.number for r in some], scores, marker=marker, color=color, label=state)
    default = [record for record in shown if record.is_default and record.value is not None]
    axes.scatter([r.number for r in default], [_last_score(r) for r in default], s=140,
                 facecolors="none", edgecolors=RED, label="default settings")  # fmt: skip
    complete = [record for record in shown if record.value is not None]
    if complete:
        best = np.maximum.accumulate([_last_score(record) for record in complete])
        axes.step([r.number for r in complete], best, where="post", color=RED, label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial")
    axes.set_ylabel(_SCORE)
    figure.suptitle("History of the search")
    figure.legend(loc="outside upper left", ncols=4, fontsize=7, frameon=False)
    return figure


def _importance(shares: Mapping[str, float]) -> "Figure":
    figure, axes = _figure(7, 0.35 * len(shares) + 1.2)
    names = list(shares)[::-1]
    axes.barh(list(map(_plain, names)), [shares[name] for name in names], color=BLUE)
    axes.set_xlabel("share of the score's variance (functional ANOVA)")
    axes.set_title("What mattered")
    return figure


def _parallel(dimensions: Sequence[_Dimension], records: Sequence[TrialRecord]) -> "Figure":
    """Draw one line a trial over one axis a hyperparameter, the better the darker."""
    from matplotlib import colormaps

    figure, axes = _figure(1.25 * len(dimensions) + 1.5, 4.5)
    scores = np.array([_last_score(record) for record in records])
    low, high = scores.min(), scores.max()
    shades = 0.2 + 0.8 * (scores - low) / (high - low if high > low else 1)
    lines = np.column_stack([dimension.scaled for dimension in dimensions])
    for line, shade in sorted(zip(lines, shades, strict=True), key=lambda drawn: float(drawn[1])):
        axes.plot(line, color=colormaps["viridis_r"](shade), linewidth=1 + 1.5 * shade, marker="o",
                  markersize=3)  # fmt: skip
    for place, dimension in enumerate(dimensions):
        axes.axvline(place, color=GREY, linewidth=0.6, zorder=0)
        for height, text in _ticks(dimension):
            axes.annotate(_plain(text), (place, height), xytext=(4, 0), textcoords="offset points",
                          fontsize=7, va="center")  # fmt: skip
    axes.set_xticks(range(len(dimensions)), [_plain(d.name) for d in dimensions], rotation=20,
                    ha="right", fontsize=8)  # fmt: skip
    axes.set_yticks([])
    axes.set_ylim(-0.08, 1.08)
    axes.set_title(f"Complete trials; darker is better ({low:.3f} to {high:.3f})")
    return figure


def _slices(dimensions: Sequence[_Dimension], records: Sequence[TrialRecord]) -> "Figure":
    from matplotlib.figure import Figure

    rows = -(-len(dimensions) // _COLUMNS)
    figure = Figure(figsize=(3 * _COLUMNS, 2.6 * rows), layout="constrained")
    grid = np.atleast_1d(figure.subplots(rows, _COLUMNS, sharey=True)).ravel()
    scores = [_last_score(record) for record in records]
    for axes, dimension in zip(grid, dimensions, strict=False):
        axes.scatter(dimension.positions, scores, color=BLUE, s=18)
        if dimension.log:
            axes.set_xscale("log")
        if dimension.choices:
            axes.set_xticks(range(len(dimension.choices)),
                            [_plain(str(choice)) for choice in dimension.choices])  # fmt: skip
            axes.set_xlim(-0.5, len(dimension.choices) - 0.5)
        axes.set_xlabel(_plain(dimension.name), fontsize=9)
        axes.tick_params(labelsize=7, which="both")
    for axes in grid[len(dimensions) :]:
        axes.set_visible(False)
    figure.supylabel(_SCORE, fontsize=9)
    return figure


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _ticks(dimension: _Dimension) -> list[tuple[float, str]]:
    """Return heights and texts of an axis of the parallel coordinates."""
    if dimension.choices:
        last = max(1, len(dimension.choices) - 1)
        single = len(dimension.choices) == 1
        return [(0.5 if single else i / last, str(c)) for i, c in enumerate(dimension.choices)]
    low, high = dimension.limits
    return [(0.0, f"{low:g}"), (1.0, f"{high:g}")]


def _last_score(record: TrialRecord) -> float:
    """Return the value, or where the trial was ended early its last epoch's score."""
    if record.value is not None:
        return record.value
    return record.epoch_scores[max(record.epoch_scores)]


def _plain(text: str) -> str:
    """Keep matplotlib from reading a text as a formula, and control characters out of it."""
    return escape_line(text).replace("$", r"\$")


def _svg(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def tuned_table(tuned: TunedSettings, default: TrainSettings) -> Table:
    """Return the settings that differ from the default ones, with how they were found."""
    found, before = tuned.train.model_dump(), default.model_dump()
    changed = [name for name in found if found[name] != before[name]]
    tuning = tuned.tuning
    return Table(
        title=(
            f"Settings found for {tuned.backbone}: {tuning.trials} trials, {tuning.pruned_trials} "
            f"pruned, {tuning.failed_trials} failed"
        ),
        headers=("setting", "default", "tuned"),
        rows=tuple((name, _text(before[name]), _text(found[name])) for name in changed),
        notes=_scores(tuning),
        records=tuple(
            {"setting": name, "default": before[name], "tuned": found[name]} for name in changed
        ),
    )


def _scores(tuning: TuningRecord) -> tuple[str, ...]:
    """Say what was reached, and by the default settings under the same conditions."""
    reference = tuning.default_average_precision
    note = (
        "Micro average precision on inner validation rows, with fresh seeds: "
        f"{tuning.average_precision:.3f}; default settings, same seeds and rows: "
        f"{'failed' if reference is None else f'{reference:.3f}'}."
    )
    won = "The default settings won: no other finalist scored higher."
    return (note, won) if tuning.default_won else (note,)


def importance_table(study: str, trials: int, shares: Mapping[str, float]) -> Table:
    """Return how much of the scores' variance each hyperparameter explains."""
    note = (
        "Functional ANOVA over complete trials and the hyperparameters that all of them have; "
        "of few trials it is a hint, not a finding."
        if shares
        else "Too few complete trials with different scores to tell what mattered."
    )
    return Table(
        title=f"What mattered in {escape_line(study)} ({trials} complete trials)",
        headers=("hyperparameter", "importance"),
        rows=tuple((name, f"{share:.3f}") for name, share in shares.items()),
        notes=(note,),
        records=tuple({"hyperparameter": n, "importance": s} for n, s in shares.items()),
    )


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
