"""Cheap references: what a row of zeros scores, and what counting words and letters scores."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from toxbench import Baseline, Predict, hookimpl


def always_negative(texts: Sequence[str], targets: npt.NDArray[np.uint8]) -> Predict:
    """Learn nothing: probability 0 for every label of every row."""
    label_count = targets.shape[1]
    return lambda texts: np.zeros((len(texts), label_count))


def tfidf_logistic_regression(texts: Sequence[str], targets: npt.NDArray[np.uint8]) -> Predict:
    """Fit one logistic regression a label on TF-IDF of word 1-2 grams and character 2-5 grams.

    A label that is constant in the train rows keeps that constant as its probability.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_union

    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    train = features.fit_transform(texts)
    models = [
        LogisticRegression(C=10, max_iter=1000).fit(train, column) if 0 < column.sum() < len(column)
        else float(column[0])
        for column in targets.T
    ]  # fmt: skip

    def predict(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        rows = features.transform(texts)
        columns = [
            np.full(len(texts), model) if isinstance(model, float) else model.predict_proba(rows)[:, 1]
            for model in models
        ]  # fmt: skip
        return np.stack(columns, axis=1)

    return predict


@hookimpl
def toxbench_baselines() -> list[Baseline]:
    """Register both."""
    return [
        Baseline(name="always-negative", fit=always_negative),
        Baseline(name="tfidf-logreg", fit=tfidf_logistic_regression),
    ]
