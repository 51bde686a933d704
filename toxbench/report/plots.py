"""Plots of a study as SVG, drawn by Optuna on matplotlib."""

import io
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import optuna

_FEWEST = 2  # complete trials below which there is nothing to compare


def importances(study: "optuna.Study") -> dict[str, float]:
    """Return the share of each hyperparameter in what the complete trials' scores differ by.

    Optuna's functional ANOVA (Hutter et al. 2014), over the complete trials and hyperparameters
    that all drawn ones have; the default settings count where they lie inside the space. Empty
    where there are too few trials, or all scores are equal.
    """
    import optuna

    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(trials) < _FEWEST or len({trial.value for trial in trials}) == 1:
        return {}
    drawn = [trial for trial in trials if "default" not in trial.user_attrs] or trials
    params = sorted(set.intersection(*(set(trial.params) for trial in drawn)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, and few trials
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return optuna.importance.get_param_importances(study, evaluator=evaluator, params=params)


def study_plots(study: "optuna.Study") -> dict[str, bytes]:
    """Draw history, importances, parallel coordinates and slices.

    Returns:
        name -> SVG; a plot that too few trials leave empty is left out.
    """
    import matplotlib as mpl
    from optuna.visualization import matplotlib as visual

    shares = importances(study)
    draws: dict[str, Callable[[], Any]] = {
        "history": lambda: visual.plot_optimization_history(study)
    }
    if shares:
        params = list(shares)
        draws["importance"] = lambda: _bars(shares)
        draws["parallel-coordinates"] = lambda: visual.plot_parallel_coordinate(study, params)
        draws["slices"] = lambda: visual.plot_slice(study, params)
    with mpl.rc_context({"svg.hashsalt": "toxbench", "svg.fonttype": "none"}):
        return {name: _svg(draw) for name, draw in draws.items()}


def _bars(shares: Mapping[str, float]) -> Any:
    """Draw the importances that are shown in the table, too."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.4 * len(shares) + 1.2))
    axes = figure.subplots()
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names], color="#4c72b0")
    axes.set_xlabel("importance (share of the variance of the score)")
    axes.set_title("Hyperparameter importances")
    return axes


def _svg(draw: Callable[[], Any]) -> bytes:
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    backend = plt.get_backend()
    plt.switch_backend("svg")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental; glyphs; tight layout
            axes = np.ravel(draw())
            figure = axes[0].figure
            if len(axes) > 1:
                figure.set_size_inches(3.2 * len(axes), 4)
            figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    finally:
        plt.close("all")
        plt.switch_backend(backend)
    return buffer.getvalue()
