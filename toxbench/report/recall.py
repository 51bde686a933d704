"""Table of thresholds with a promised recall, chosen on validation rows, and their precision."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

import numpy as np

from toxbench.errors import SettingsError
from toxbench.evaluation.definitions import HALF
from toxbench.evaluation.metrics import score_labels
from toxbench.evaluation.thresholds import positives_for_recall, recall_threshold
from toxbench.plugin.contracts import Table
from toxbench.ranking.build import check_labels, complete_cells
from toxbench.ranking.cells import load_cells
from toxbench.ranking.pool import Cell
from toxbench.ranking.predictions import no_candidate_error, varied_candidates
from toxbench.ranking.rows import mean_known, summarize_cells
from toxbench.records import LabelScores
from toxbench.report.tables import Record, records_table
from toxbench.store.cells import CellStore, ProtocolRecord
from toxbench.util.arrays import Codes, Probabilities, Targets, known_targets
from toxbench.util.text import escape_line


def recall_table(
    store: CellStore, recall: float, confidence: float, label: str | None = None
) -> Table:
    """Choose thresholds on the validation rows of each cell, for one label or all.

    Labels with fewer than `positives_for_recall` positive validation rows in a fold, and
    candidates with the same prediction for every row, are left out.

    Raises:
        SettingsError: no such label, or no label has enough positive validation rows.
        StorageError: no candidate has a seed with every fold; as `load_cells`.
    """
    protocol, rows, cells = load_cells(store)
    check_labels(protocol.labels, "--label", [label] if label is not None else [])
    labels = [i for i, name in enumerate(protocol.labels) if label in {None, name}]
    choose = partial(recall_threshold, recall=recall, confidence=confidence)
    needed = positives_for_recall(recall, confidence)
    columns = _columns_with_support(protocol, rows.targets[:, labels], needed)
    complete = complete_cells(cells, len(protocol.folds))
    board = summarize_cells(protocol, (record for record, _ in cells))
    if not board.rows:
        raise no_candidate_error(store)
    return records_table(
        f"Thresholds with a recall of {recall:g} with confidence {confidence:g}, mean over cells",
        [
            _label_record(row.name, complete[row.key], protocol, rows.codes, labels[i], choose)
            for row in varied_candidates(board.rows)
            for i in columns
        ],
        (
            f"Only labels with at least {needed} positive validation rows in each fold.",
            "The confidence is of one label and trained model, on rows like the validation rows.",
        ),
        keys=2,
    )


def _columns_with_support(protocol: ProtocolRecord, targets: Targets, needed: int) -> list[int]:
    """Return the columns with enough positive validation rows in each fold, at least one."""
    counts = [targets[list(fold.validation)].sum(axis=0, dtype=int) for fold in protocol.folds]
    fewest = np.min(counts, axis=0)
    if fewest.max() < needed:
        raise SettingsError(
            f"--recall: a label needs {needed} positive validation rows in each fold, and there "
            f"are {fewest.max()}; use a lower --recall or --confidence, or run with a larger "
            "--validation-size"
        )
    columns: list[int] = np.flatnonzero(fewest >= needed).tolist()
    return columns


def _label_record(
    name: str, cells: Sequence[Cell], protocol: ProtocolRecord, codes: Codes, column: int,
    choose: Callable[[Targets, Probabilities], float],
) -> Record:  # fmt: skip
    label, scores = protocol.labels[column], list[LabelScores]()
    for record, tensors in cells:
        fold = protocol.folds[record.key.fold]
        validation, test = codes[list(fold.validation), column], codes[list(fold.test)]
        threshold = choose(known_targets(validation), tensors["validation"][:, column])
        one = [column]  # keeps the axis of labels
        scores += score_labels([label], test[:, one], tensors["test"][:, one], [threshold])
    half = [record.per_label[HALF][column] for record, _ in cells]
    return {
        "candidate": escape_line(name),
        "label": escape_line(label),
        "threshold": fmean(s.threshold for s in scores),
        "recall": mean_known(s.recall for s in scores if s.support),
        "precision": mean_known(s.precision for s in scores if s.support),
        "recall at 0.5": mean_known(s.recall for s in half if s.support),
        "precision at 0.5": mean_known(s.precision for s in half if s.support),
    }
