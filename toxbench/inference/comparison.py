"""Scores, speed and size of one model in several formats, on its test rows."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from toxbench.data.table import TextDataset
from toxbench.evaluation.bootstrap import (
    MIN_EFFECTIVE_UNITS,
    BootstrapScores,
    SampleCounts,
    Units,
    bootstrap,
    sampling_units,
    sum_by_unit,
)
from toxbench.evaluation.definitions import HEADLINES
from toxbench.evaluation.row_counts import row_counts
from toxbench.evaluation.significance import compare_all
from toxbench.evaluation.thresholds import predict
from toxbench.inference.model import TextClassifier
from toxbench.plugin.contracts import Table
from toxbench.report.tables import create_table
from toxbench.store.cells import CellStore
from toxbench.util.arrays import Codes, hide_unlabelled, known_targets

ROUNDS = 5
TIMED_ROWS = 500


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """Texts with their codes, ``[row, label]``, and sampling units, ``[row]``."""

    texts: Sequence[str]
    codes: Codes
    units: Units


@dataclass(frozen=True)
class Variant:
    """A model in one format: what computes it, and the bytes of its file."""

    classifier: TextClassifier
    size: int


def read_test_rows(store: CellStore, fold: int, table: TextDataset) -> LabelledTexts:
    """Return the test rows of a fold of stored results; ``table`` is that of the results."""
    rows = np.array(store.protocol().folds[fold].test, dtype=np.int64)
    texts = [table.texts[row] for row in rows.tolist()]
    return LabelledTexts(texts, table.codes[rows], sampling_units(store.rows().groups[rows]))


def compare(
    variants: Mapping[str, Variant], rows: LabelledTexts, thresholds: Sequence[float]
) -> Table:
    """Score and time variants of a model; return one row for each, compared with the first."""
    probabilities = {
        name: variant.classifier.predict_probabilities(rows.texts)
        for name, variant in variants.items()
    }
    predictions = {
        name: predict(hide_unlabelled(values, rows.codes), thresholds)
        for name, values in probabilities.items()
    }
    targets = known_targets(rows.codes)
    first = next(iter(variants))
    timed = rows.texts[:TIMED_ROWS]
    speeds = _comments_per_second(variants, timed)
    samples = {
        name: SampleCounts(sum_by_unit(row_counts(targets, values)[None], rows.units))
        for name, values in predictions.items()
    }
    scores = bootstrap(samples)
    return create_table(
        f"Formats of the model, on {len(rows.texts)} test rows at the thresholds of the rule 0.5",
        ("format", "MB", "comments/s", "changed labels",
         *(column for title in HEADLINES.values() for column in (title, f"{title} difference"))),
        [
            (name, f"{variant.size / 1e6:.1f}", f"{speeds[name]:.0f}",
             f"{(predictions[name] != predictions[first]).mean():.2%}",
             *_score_cells(scores, name, first))
            for name, variant in variants.items()
        ],
        (
            f"Differences are from {first}, with 95 % confidence intervals over rows or their "
            "groups. Changed labels are the share of all labels that are predicted differently.",
            f"Comments/s on this CPU, with tokenization: median of {ROUNDS} rounds over "
            f"{len(timed)} rows; each round times all formats.",
        ),
    )  # fmt: skip


def _comments_per_second(variants: Mapping[str, Variant], texts: Sequence[str]) -> dict[str, float]:
    """Time the variants in turn, so that a slow moment of the machine affects all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, variant in variants.items():
            started = time.perf_counter()
            variant.classifier.predict_probabilities(texts)
            seconds[name].append(time.perf_counter() - started)
    return {name: len(texts) / median(values) for name, values in seconds.items()}


def _score_cells(
    scores: Mapping[str, BootstrapScores], name: str, first: str
) -> Iterator[float | str | None]:
    """Yield each score, and its difference from that of ``first``."""
    pair = {key: scores[key] for key in (name, first)}
    for metric in HEADLINES:
        means = {key: float(values.observed[metric].mean()) for key, values in pair.items()}
        yield means[name]
        if name == first:
            yield None
        elif scores[first].effective_units < MIN_EFFECTIVE_UNITS:  # no interval can be given
            yield f"{means[name] - means[first]:+.3f}"
        else:
            (d,) = compare_all(pair, means, metric)
            yield f"{d.difference:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
