"""A baseline that a plugin registers, what it is given, and logistic regression as a last step."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from toxbench.errors import PluginError
from toxbench.settings import BaselineSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Predict: TypeAlias = "Callable[[Sequence[str]], npt.NDArray[np.float64]]"


@dataclass(frozen=True, kw_only=True)
class BaselineContext:
    """The cell that a baseline is fitted for.

    Attributes:
        labels: names of the columns of the targets.
        labelled: whether each target is known, bool ``[row, label]``; the others are 0. None: all
            are.
        seed: of the cell; 0 unless the baseline is stochastic.
        settings: an instance of `Baseline.settings`.
        weights: checkpoint folder that `Baseline.weights_setting` names; None: it names none.
        cache: folder for files that the baseline can make again. It may not exist yet.
    """

    labels: tuple[str, ...]
    labelled: "npt.NDArray[np.bool_] | None" = None
    seed: int = 0
    settings: Any = field(default_factory=BaselineSettings)
    weights: Path | None = None
    cache: Path


Fit: TypeAlias = "Callable[[Sequence[str], npt.NDArray[np.uint8], BaselineContext], Predict]"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A reference model with a training of its own.

    Attributes:
        name: its row on the leaderboard; letters, digits, ``-``, ``_`` and ``.``.
        fit: ``fit(texts, targets, context)`` with targets 0/1 of shape ``[row, label]`` and a
            `BaselineContext` returns ``predict(texts)``, which returns probabilities of shape
            ``[row, label]``.
        most_rows: maximum number of train rows. ``fit`` gets a random sample of a larger table,
            the same in every run, and the leaderboard shows its size; None: no maximum.
        settings: class of the settings, each with a default. Users override them in the table
            ``[baseline.NAME]`` of a config file; other settings are another candidate.
        weights_setting: the setting that names pretrained weights like a word of ``--backbones``:
            a backbone, an id of the Hub or a folder. "": there are no weights.
        stochastic: whether the result depends on the seed. It then has a cell for each seed.
        on_request: whether only runs that name it after ``--baselines`` score it.
        needs: package that ``fit`` imports. If it is not installed, the run is refused. "": none.
        install: the command that installs it.

    Raises:
        PluginError: ``fit`` does not have these three arguments.
    """

    name: str
    fit: Fit
    most_rows: int | None = None
    settings: type[BaselineSettings] = BaselineSettings
    weights_setting: str = ""
    stochastic: bool = False
    on_request: bool = False
    needs: str = ""
    install: str = ""

    def __post_init__(self) -> None:
        try:
            inspect.signature(self.fit).bind("texts", "targets", "context")
        except TypeError as error:
            raise PluginError(
                f"baseline {self.name[:80]!r}: its fit must be fit(texts, targets, context), "
                f"where context is a toxbench.BaselineContext: {error}"
            ) from None


def fit_logistic_regression(
    features: Any,
    targets: "npt.NDArray[np.uint8]",
    c: float,
    labelled: "npt.NDArray[np.bool_] | None" = None,
) -> "Callable[[Any], npt.NDArray[np.float64]]":
    """Fit one logistic regression per label.

    A label that is constant in its labelled rows keeps that constant as its probability.

    Args:
        features: matrix ``[row, feature]``, dense or sparse.
        targets: 0/1 of shape ``[row, label]``.
        c: inverse of the strength of the penalty, scikit-learn's ``C``.
        labelled: whether each target is known, bool ``[row, label]``; None: all are.

    Returns:
        a function from features to probabilities ``[row, label]``.
    """
    import numpy as np

    if labelled is None or labelled.all():
        models = [_fit_label(features, column, c) for column in targets.T]
    else:
        rows = [np.flatnonzero(column) for column in labelled.T]
        models = [_fit_label(features[r], targets[r, i], c) for i, r in enumerate(rows)]
    return lambda features: np.stack([model(features) for model in models], axis=1)


def _fit_label(features: Any, column: "npt.NDArray[np.uint8]", c: float) -> "Callable[[Any], Any]":
    """Fit one label; return a function from features to probabilities."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(column)) < 2:
        constant = float(column.any())
        return lambda features: np.full(features.shape[0], constant)
    model = LogisticRegression(C=c, max_iter=1000).fit(features, column)
    return lambda features: model.predict_proba(features)[:, 1]
