"""Plots and tables of a hyperparameter search."""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toxbench.evaluation.curves import trial_front
from toxbench.evaluation.definitions import OBJECTIVES, SEARCH_COSTS
from toxbench.plugin.contracts import Table
from toxbench.records import TrialRecord, TunedSettings, TuningRecord
from toxbench.report.figures import BLUE, GREY, RED, plot_text, svg_bytes
from toxbench.report.tables import Record, records_table
from toxbench.settings import TrainSettings
from toxbench.util.text import format_setting

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_SLICES_PER_ROW = 4


def fanova_importances(study: "optuna.Study") -> dict[str, float]:
    """Return hyperparameter -> share of the scores' variance that it explains, largest first.

    Computed by optuna's functional ANOVA (Hutter et al. 2014) from complete trials, for the
    hyperparameters that all sampled trials have. The trial of the default settings counts if it
    has them. Empty if there are too few trials, or if all scores are equal.
    """
    import optuna

    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    sampled = [trial for trial in trials if "default" not in trial.user_attrs]
    params = sorted(set.intersection(*(set(trial.params) for trial in sampled)) if sampled else ())
    usable = [trial for trial in trials if trial.params.keys() >= set(params)]
    is_varied = any(len({trial.params[name] for trial in usable}) > 1 for name in params)
    if not is_varied or len({trial.value for trial in usable}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, and few trials
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return optuna.importance.get_param_importances(study, evaluator=evaluator, params=params)


def study_plots(
    records: Sequence[TrialRecord], importances: Mapping[str, float]
) -> dict[str, bytes]:
    """Return name -> SVG, the same for the same trials and `fanova_importances`."""
    figures = study_figures(records, importances)
    return {name: svg_bytes(figure) for name, figure in figures.items()}


def study_figures(
    records: Sequence[TrialRecord], importances: Mapping[str, float]
) -> "dict[str, Figure]":
    """Return name -> figure: the history, the front of costs, and plots of the importances."""
    complete = [record for record in records if record.value is not None]
    figures = {"history": _plot_history(records)}
    if any(record.costs for record in complete):
        figures["front"] = _plot_front(complete)
    if importances:
        dimensions = [_Dimension(name, complete) for name in importances]
        figures["importance"] = _plot_importances(importances)
        figures["parallel-coordinates"] = _plot_parallel_coordinates(dimensions, complete)
        figures["slices"] = _plot_slices(dimensions, complete)
    return figures


def tuned_table(tuned: TunedSettings, default: TrainSettings) -> Table:
    """Return the tuned settings that differ from the default settings."""
    values, defaults, tuning = tuned.train.model_dump(), default.model_dump(), tuned.tuning
    records: list[Record] = [
        {"setting": name, "default": defaults[name], "tuned": values[name]}
        for name in values
        if values[name] != defaults[name]
    ]
    fold = f" fold {tuned.fold}" if tuned.fold else ""
    title = (
        f"Tuned settings of {tuned.backbone}{fold}: {tuning.trials} trials, {tuning.pruned_trials} "
        f"pruned, {tuning.failed_trials} failed"
    )
    headers = ("setting", "default", "tuned")
    return records_table(title, records, _score_notes(tuning), headers, text=format_setting)


def front_table(study: str, records: Sequence[TrialRecord]) -> Table:
    """Return the trials on the Pareto front of a search with costs, the best score first."""
    front = sorted(trial_front(records), key=lambda record: -(record.value or 0.0))
    rows: list[Record] = [
        {
            "trial": record.number,
            "score": record.value,
            **dict(record.costs.items()),
            "settings": "default" if record.is_default else param_text(record),
        }
        for record in front
    ]
    costs = front[0].costs if front else {}
    notes = (
        f"No other trial is better in one objective and at least as good in the rest: score, the "
        f"{OBJECTIVES[records[0].metric]}; "
        f"{'; '.join(f'{name}, {SEARCH_COSTS[name]}' for name in costs)}.",
        "All are of inner folds; no test row is used. To make another trial of the front the "
        "result: the same command with --pick TRIAL.",
    )
    return records_table(f"Pareto front of {study}", rows, notes)


def param_text(trial: TrialRecord) -> str:
    """Return the sampled settings of a trial in one line."""
    params = sorted(trial.params.items())
    return ", ".join(f"{name} {format_setting(value)}" for name, value in params) or "-"


def importance_table(study: str, trials: int, importances: Mapping[str, float]) -> Table:
    """Return the importance of each hyperparameter; ``trials`` is the number of complete trials."""
    note = (
        "Importance is the share of the scores' variance that a hyperparameter explains "
        "(functional ANOVA over complete trials). With few trials it is only a hint."
        if importances
        else "Too few complete trials with different scores to compute importances."
    )
    records: list[Record] = [
        {"hyperparameter": name, "importance": float(importance)}
        for name, importance in importances.items()
    ]
    title = f"Hyperparameter importance in {study} ({trials} complete trials)"
    return records_table(title, records, (note,), ("hyperparameter", "importance"))


def _score_notes(tuning: TuningRecord) -> tuple[str, ...]:
    """Return notes on the score of the tuned settings, and on that of the default settings."""
    reference = tuning.default_score
    note = (
        f"Score on inner validation rows ({OBJECTIVES[tuning.metric]}), trained with new seeds: "
        f"{tuning.score:.3f}; default settings with the same seeds and rows: "
        f"{'failed' if reference is None else f'{reference:.3f}'}."
    )
    default_won = "The default settings won: no other finalist scored higher."
    picked = f"Trial {tuning.picked_trial} of the Pareto front was picked by hand."
    return (
        note,
        *([default_won] if tuning.default_won else []),
        *([] if tuning.picked_trial is None else [picked]),
    )


@dataclass(frozen=True)
class _Dimension:
    """One hyperparameter of several trials, as positions on an axis."""

    name: str
    records: Sequence[TrialRecord]

    @property
    def values(self) -> list[Any]:
        """Value of each trial; None if the trial does not have the hyperparameter."""
        return [record.params.get(self.name) for record in self.records]

    @cached_property
    def distribution(self) -> dict[str, Any]:
        """Optuna's distribution, from the first trial that has one."""
        texts = (r.distributions[self.name] for r in self.records if self.name in r.distributions)
        distribution: dict[str, Any] = json.loads(next(texts))
        return distribution

    @property
    def choices(self) -> list[Any]:
        """Values of a categorical hyperparameter; empty for a range."""
        return list(self.distribution["attributes"].get("choices", []))

    @property
    def is_log(self) -> bool:
        """Whether the range is logarithmic."""
        return bool(self.distribution["attributes"].get("log", False))

    @property
    def positions(self) -> npt.NDArray[np.float64]:
        """Position of each trial: its value, the index of its choice, or NaN."""
        values = self.values
        if self.choices:
            values = [None if v is None else self.choices.index(v) for v in values]
        return np.array([math.nan if v is None else float(v) for v in values])

    @property
    def scaled_positions(self) -> npt.NDArray[np.float64]:
        """Positions, scaled from 0 to 1 within the range."""
        low, high = self.limits
        positions = self.positions
        if self.is_log:
            low, high, positions = math.log(low), math.log(high), np.log(positions)
        return (positions - low) / (high - low) if high > low else np.full(len(positions), 0.5)

    @property
    def limits(self) -> tuple[float, float]:
        """Both ends of the range."""
        if self.choices:
            return 0.0, float(len(self.choices) - 1)
        attributes = self.distribution["attributes"]
        return float(attributes["low"]), float(attributes["high"])


def _plot_history(records: Sequence[TrialRecord]) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    figure, axes = _new_figure(7, 4)
    scored = [record for record in records if record.value is not None or record.epoch_scores]
    for state, marker, color in (("complete", "o", BLUE), ("pruned", "x", GREY)):
        trials = [record for record in scored if record.state == state]
        scores = [_last_score(record) for record in trials]
        axes.scatter([r.number for r in trials], scores, marker=marker, color=color, label=state)
    default = [record for record in scored if record.is_default and record.value is not None]
    axes.scatter([r.number for r in default], [_last_score(r) for r in default], s=140,
                 facecolors="none", edgecolors=RED, label="default settings")  # fmt: skip
    complete = [record for record in scored if record.value is not None]
    if complete:
        best = np.maximum.accumulate([_last_score(record) for record in complete])
        axes.step([r.number for r in complete], best, where="post", color=RED, label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial")
    axes.set_ylabel(_score_title(records))
    figure.suptitle("Optimization history")
    figure.legend(loc="outside upper left", ncols=4, fontsize=7, frameon=False)
    return figure


def _plot_front(complete: Sequence[TrialRecord]) -> "Figure":
    """Plot the score against each cost; numbers are those of the trials on the Pareto front."""
    from matplotlib.figure import Figure

    costs, front = list(complete[0].costs), trial_front(complete)
    figure = Figure(figsize=(7, 3.4 * len(costs)), layout="constrained")
    for axes, name in zip(figure.subplots(len(costs), squeeze=False)[:, 0], costs, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.scatter([record.costs[name] for record in complete], list(map(_last_score, complete)),
                     color=GREY, s=18, label="other trials")  # fmt: skip
        numbers: dict[tuple[float, float], list[str]] = {}
        for record in front:
            point = record.costs[name], _last_score(record)
            numbers.setdefault(point, []).append(str(record.number))
        line = "-" if len(costs) == 1 else ""  # with two costs, the front is not a line
        axes.step(*zip(*sorted(numbers), strict=True), where="post", color=RED, linestyle=line,
                  marker="o", markersize=5, label="Pareto front")  # fmt: skip
        for point, texts in numbers.items():
            axes.annotate(", ".join(texts), point, xytext=(0, 5), textcoords="offset points",
                          fontsize=8, ha="center")  # fmt: skip
        axes.margins(0.1)
        axes.set_xlabel(f"{name}: {SEARCH_COSTS[name]}")
        axes.set_ylabel(_score_title(complete), fontsize=7)
        axes.legend(fontsize=7, frameon=False)
    return figure


def _plot_importances(importances: Mapping[str, float]) -> "Figure":
    figure, axes = _new_figure(7, 0.35 * len(importances) + 1.2)
    names = list(importances)[::-1]
    axes.barh(list(map(plot_text, names)), [importances[name] for name in names], color=BLUE)
    axes.set_xlabel("share of the score's variance (functional ANOVA)")
    axes.set_title("Hyperparameter importance")
    return figure


def _plot_parallel_coordinates(
    dimensions: Sequence[_Dimension], records: Sequence[TrialRecord]
) -> "Figure":
    """Plot one line per trial over one axis per hyperparameter; higher scores are darker."""
    from matplotlib import colormaps

    figure, axes = _new_figure(1.25 * len(dimensions) + 1.5, 4.5)
    scores = np.array([_last_score(record) for record in records])
    low, high = scores.min(), scores.max()
    shades = 0.2 + 0.8 * (scores - low) / (high - low if high > low else 1)
    lines = np.column_stack([dimension.scaled_positions for dimension in dimensions])
    for line, shade in sorted(zip(lines, shades, strict=True), key=lambda pair: float(pair[1])):
        axes.plot(line, color=colormaps["viridis_r"](shade), linewidth=1 + 1.5 * shade, marker="o",
                  markersize=3)  # fmt: skip
    for place, dimension in enumerate(dimensions):
        axes.axvline(place, color=GREY, linewidth=0.6, zorder=0)
        for height, text in _ticks(dimension):
            axes.annotate(plot_text(text), (place, height), xytext=(4, 0),
                          textcoords="offset points", fontsize=7, va="center")  # fmt: skip
    axes.set_xticks(range(len(dimensions)), [plot_text(d.name) for d in dimensions], rotation=20,
                    ha="right", fontsize=8)  # fmt: skip
    axes.set_yticks([])
    axes.set_ylim(-0.08, 1.08)
    axes.set_title(f"Complete trials: a darker line has a higher score ({low:.3f} to {high:.3f})")
    return figure


def _plot_slices(dimensions: Sequence[_Dimension], records: Sequence[TrialRecord]) -> "Figure":
    from matplotlib.figure import Figure

    rows = -(-len(dimensions) // _SLICES_PER_ROW)
    figure = Figure(figsize=(3 * _SLICES_PER_ROW, 2.6 * rows), layout="constrained")
    grid = np.atleast_1d(figure.subplots(rows, _SLICES_PER_ROW, sharey=True)).ravel()
    scores = [_last_score(record) for record in records]
    for axes, dimension in zip(grid, dimensions, strict=False):
        axes.scatter(dimension.positions, scores, color=BLUE, s=18)
        if dimension.is_log:
            axes.set_xscale("log")
        if dimension.choices:
            axes.set_xticks(range(len(dimension.choices)),
                            [plot_text(str(choice)) for choice in dimension.choices])  # fmt: skip
            axes.set_xlim(-0.5, len(dimension.choices) - 0.5)
        axes.set_xlabel(plot_text(dimension.name), fontsize=9)
        axes.tick_params(labelsize=7, which="both")
    for axes in grid[len(dimensions) :]:
        axes.set_visible(False)
    figure.supylabel(_score_title(records), fontsize=9)
    return figure


def _score_title(records: Sequence[TrialRecord]) -> str:
    titles = [OBJECTIVES[record.metric] for record in records[:1]]
    return f"{''.join(titles) or 'score'} (inner validation)"


def _new_figure(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _ticks(dimension: _Dimension) -> list[tuple[float, str]]:
    """Return heights and texts of an axis of the parallel coordinates."""
    if dimension.choices:
        last = max(1, len(dimension.choices) - 1)
        is_single = len(dimension.choices) == 1
        return [(0.5 if is_single else i / last, str(c)) for i, c in enumerate(dimension.choices)]
    low, high = dimension.limits
    return [(0.0, f"{low:g}"), (1.0, f"{high:g}")]


def _last_score(record: TrialRecord) -> float:
    """Return the score of a trial; of a trial that ended early, the score of its last epoch."""
    if record.value is not None:
        return record.value
    return record.epoch_scores[max(record.epoch_scores)]
