"""Cheap references: what a row of zeros scores, and what counting words and letters scores."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from toxbench import Baseline, Predict, hookimpl

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


# Its grams take 15 KB of memory for each train row, and more rows hardly make it better.
MOST_ROWS = 50_000


def always_negative(texts: Sequence[str], targets: "npt.NDArray[np.uint8]") -> Predict:
    """Learn nothing: probability 0 for every label of every row."""
    import numpy as np

    label_count = targets.shape[1]
    return lambda texts: np.zeros((len(texts), label_count))


def tfidf_logistic_regression(texts: Sequence[str], targets: "npt.NDArray[np.uint8]") -> Predict:
    """Fit one logistic regression a label on TF-IDF of word 1-2 grams and character 2-5 grams.

    Of more than `MOST_ROWS` train rows it sees a random sample. Of a table with 100 train rows or
    more, grams that stand in a single row are left out. Where that leaves none, or nothing is a
    word, single characters are counted. A label that is constant in the train rows keeps that
    constant as its probability.
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    fewest = 2 if len(texts) >= 100 else 1
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), min_df=fewest),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=fewest),
    )
    try:
        train = features.fit_transform(texts)
    except ValueError:  # what scikit-learn says of an empty vocabulary: of emoji, for example
        features = TfidfVectorizer(analyzer="char")
        train = features.fit_transform(texts)
    models = [_fit_label(train, column) for column in targets.T]

    def predict(texts: Sequence[str]) -> "npt.NDArray[np.float64]":
        rows = features.transform(texts)
        return np.stack([model(rows) for model in models], axis=1)

    return predict


def _fit_label(rows: Any, column: "npt.NDArray[np.uint8]") -> "Callable[[Any], Any]":
    """Return the function from features to the probabilities of one label."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    if column.min() == column.max():
        return lambda rows: np.full(rows.shape[0], float(column[0]))
    model = LogisticRegression(C=10, max_iter=1000).fit(rows, column)
    return lambda rows: model.predict_proba(rows)[:, 1]


@hookimpl
def toxbench_baselines() -> list[Baseline]:
    """Register both."""
    return [
        Baseline(name="always-negative", fit=always_negative),
        Baseline(name="tfidf-logreg", fit=tfidf_logistic_regression, most_rows=MOST_ROWS),
    ]
