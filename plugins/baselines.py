"""Cheap baselines: all-negative predictions, and logistic regression on word and letter counts."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from toxbench import Baseline, Predict, hookimpl

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


# The n-grams take 15 KB of memory for each train row, and more rows hardly improve the scores.
MOST_ROWS = 50_000


def always_negative(texts: Sequence[str], targets: "npt.NDArray[np.uint8]") -> Predict:
    """Predict probability 0 for every label of every row."""
    import numpy as np

    label_count = targets.shape[1]
    return lambda texts: np.zeros((len(texts), label_count))


def tfidf_logistic_regression(texts: Sequence[str], targets: "npt.NDArray[np.uint8]") -> Predict:
    """Fit one logistic regression per label on TF-IDF of word 1-2-grams and character 2-5-grams.

    With more than `MOST_ROWS` train rows it is fitted on a random sample. With 100 train rows or
    more, n-grams that occur in only one row are ignored. If no n-gram remains, or no text has a
    word, the features are single characters. A label that is constant in the train rows keeps that
    constant as its probability.
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    min_rows = 2 if len(texts) >= 100 else 1
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), min_df=min_rows),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=min_rows),
    )
    try:
        train = features.fit_transform(texts)
    except ValueError:  # empty vocabulary, for example of texts that hold only emoji
        features = TfidfVectorizer(analyzer="char")
        train = features.fit_transform(texts)
    models = [_fit_label(train, column) for column in targets.T]

    def predict(texts: Sequence[str]) -> "npt.NDArray[np.float64]":
        rows = features.transform(texts)
        return np.stack([model(rows) for model in models], axis=1)

    return predict


def _fit_label(rows: Any, column: "npt.NDArray[np.uint8]") -> "Callable[[Any], Any]":
    """Fit one label; return a function from features to probabilities."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    if column.min() == column.max():
        return lambda rows: np.full(rows.shape[0], float(column[0]))
    model = LogisticRegression(C=10, max_iter=1000).fit(rows, column)
    return lambda rows: model.predict_proba(rows)[:, 1]


@hookimpl
def toxbench_baselines() -> list[Baseline]:
    """Register both baselines."""
    return [
        Baseline(name="always-negative", fit=always_negative),
        Baseline(name="tfidf-logreg", fit=tfidf_logistic_regression, most_rows=MOST_ROWS),
    ]
