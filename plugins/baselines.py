"""Cheap baselines: all-negative predictions, and logistic regression on word and letter counts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toxbench import Baseline, BaselineContext, Predict, fit_logistic_regression, hookimpl

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


# The n-grams take 15 KB of memory for each train row, and more rows hardly improve the scores.
MOST_ROWS = 50_000


def always_negative(
    texts: Sequence[str], targets: "npt.NDArray[np.uint8]", context: BaselineContext
) -> Predict:
    """Predict probability 0 for every label of every row."""
    import numpy as np

    return lambda texts: np.zeros((len(texts), len(context.labels)))


def tfidf_logistic_regression(
    texts: Sequence[str], targets: "npt.NDArray[np.uint8]", context: BaselineContext
) -> Predict:
    """Fit one logistic regression per label on TF-IDF of word 1-2-grams and character 2-5-grams.

    With more than `MOST_ROWS` train rows it is fitted on a random sample. With 100 train rows or
    more, n-grams that occur in only one row are ignored. If no n-gram remains, or no text has a
    word, the features are single characters.
    """
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
    predict = fit_logistic_regression(train, targets, 10, context.labelled)
    return lambda texts: predict(features.transform(texts))


@hookimpl
def toxbench_baselines() -> list[Baseline]:
    """Register both baselines."""
    return [
        Baseline(name="always-negative", fit=always_negative),
        Baseline(name="tfidf-logreg", fit=tfidf_logistic_regression, most_rows=MOST_ROWS),
    ]
