"""Tables of slices: micro-F1 with the difference to the other rows, and AUCs of each label."""

from collections.abc import Iterator, Mapping

import numpy as np

from toxbench.evaluation.bootstrap import Units
from toxbench.evaluation.row_counts import row_counts
from toxbench.evaluation.slices import compare_slices, power_mean, slice_aucs
from toxbench.evaluation.thresholds import POSITIVES_NEEDED, predict
from toxbench.plugin.contracts import Table
from toxbench.ranking.predictions import StoredPredictions
from toxbench.report.tables import Record, records_table
from toxbench.util.arrays import UNLABELLED, Members, Probabilities
from toxbench.util.text import escape_line

Slices = Mapping[str, Members]  # name -> which test rows
_NUMBERS = "micro-F1", "low", "high", "difference", "difference low", "difference high", "p (Holm)"
_AUCS = "subgroup", "bpsn", "bnsp"


def score_table(predicted: StoredPredictions, units: Units, slices: Slices) -> Table:
    """Return one row for each candidate and slice with test rows; ``units`` are those of rows."""
    targets, records = predicted.targets, list[Record]()
    nothing = (None,) * len(_NUMBERS)
    non_empty = {name: members for name, members in slices.items() if members.any()}
    for candidate, probabilities in predicted.candidates.items():
        predictions = [predict(seed, [0.5] * targets.shape[1]) for seed in probabilities]
        counts = np.stack([row_counts(targets, seed) for seed in predictions])
        scores = compare_slices(counts, units, non_empty)
        for name, members in non_empty.items():
            records.append(
                {
                    "candidate": escape_line(candidate),
                    "slice": escape_line(name),
                    "rows": int(members.sum()),
                    "positive rows": int(targets[members].any(axis=1).sum()),
                    **dict(zip(_NUMBERS, scores.get(name, nothing), strict=True)),
                }
            )
    is_grouped = len(set(units.tolist())) < len(units)
    counted = "groups with positive rows" if is_grouped else "positive rows"
    omitted = ", ".join(map(escape_line, sorted(slices.keys() - non_empty.keys()))) or "none"
    return records_table(
        "micro-F1 of slices of the test rows at threshold 0.5, mean over seeds",
        records,
        (
            "Low and high are the ends of 95 % confidence intervals. The difference is to the "
            "other test rows; p is corrected for the slices of a candidate.",
            "micro-F1 also depends on the share of positive rows, which differs between slices; "
            "the AUCs of --table auc do not.",
            f"-: the slice or the other test rows have fewer than {POSITIVES_NEEDED} {counted}, "
            f"too few for an interval. Slices without a test row: {omitted}.",
        ),
        ("candidate", "slice", "rows", "positive rows", *_NUMBERS),
        keys=2,
    )


def auc_table(predicted: StoredPredictions, slices: Slices) -> Table:
    """Return the AUCs of each candidate, label and slice, and their power mean over slices."""
    records: list[Record] = []
    for candidate, probabilities in predicted.candidates.items():
        for column, label in enumerate(predicted.protocol.labels):
            names: Record = {"candidate": escape_line(candidate), "label": escape_line(label)}
            codes = predicted.codes[:, column]
            labelled = codes != UNLABELLED
            known = {name: members[labelled] for name, members in slices.items()}
            aucs = _auc_records(codes[labelled] == 1, probabilities[:, labelled, column], known)
            records += (names | record for record in aucs)
    return records_table(
        "ROC AUC of each label in slices of the test rows, mean over seeds",
        records,
        (
            "Subgroup: rows of the slice. BPSN (background positive, subgroup negative): positives "
            "of the other rows, negatives of the slice; low if the slice has false positives. "
            "BNSP: the reverse; low if positives of the slice are missed. The power mean over the "
            "slices has the power -5 (Borkan et al. 2019).",
            f"Not shown: AUCs with fewer than {POSITIVES_NEEDED} positive or negative rows.",
        ),
        ("candidate", "label", "slice", "positive rows", *_AUCS),
        keys=3,
    )


def _auc_records(
    positive: Members, probabilities: Probabilities, slices: Slices
) -> Iterator[Record]:
    """Yield the slices with an AUC, and the power means if there are several."""
    columns: dict[str, list[float | None]] = {kind: [] for kind in _AUCS}
    for name, members in slices.items():
        aucs = slice_aucs(positive, probabilities, members)
        if set(aucs.values()) != {None}:
            count = int((members & positive).sum())
            yield {"slice": escape_line(name), "positive rows": count, **aucs}
        for kind, auc in aucs.items():
            columns[kind].append(auc)
    means = {kind: power_mean(column) for kind, column in columns.items()}
    if set(means.values()) != {None}:
        yield {"slice": "power mean", "positive rows": None, **means}
