"""Logistic regression on any features, the last step of most baselines."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


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
