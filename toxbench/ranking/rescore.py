"""Rescores stored probabilities: other thresholds, fewer labels, another metric; no training."""

from collections.abc import Sequence

import numpy as np

from toxbench.errors import SettingsError, nearest
from toxbench.evaluation.definitions import HALF, METRICS, RULES
from toxbench.evaluation.metrics import score_cell
from toxbench.evaluation.thresholds import choose_thresholds
from toxbench.ranking.build import build_leaderboard, load_cells, load_failures
from toxbench.ranking.pool import Cell
from toxbench.ranking.rows import Leaderboard
from toxbench.records import PARTS
from toxbench.store.cells import CellStore, ProtocolRecord
from toxbench.store.rows import StoredRows


def rescore(
    store: CellStore, rule: str = HALF, without: Sequence[str] = (), metric: str = "micro_f1"
) -> Leaderboard:
    """Build a leaderboard of stored probabilities; nothing is written.

    Args:
        store: of the protocol.
        rule: of the thresholds.
        without: labels to exclude; thresholds are chosen without them.
        metric: to rank by.

    Raises:
        SettingsError: the rule, a label or the metric does not exist, all labels are excluded, or
            a candidate has no positive validation rows to choose thresholds on.
        StorageError: as `load_cells`.
    """
    if rule not in RULES:
        raise SettingsError(f"thresholds {rule!r}: choose {', '.join(RULES)}")
    if metric not in METRICS:
        raise SettingsError(f"--metric {metric}: no such metric{nearest(metric, METRICS)}")
    failures = load_failures(store)
    protocol, rows, cells = load_cells(store)
    # Cells that an older toxbench stored may lack the metric.
    is_new_metric = any(metric not in record.metrics[HALF]["test"] for record, _ in cells)
    if without or is_new_metric:
        columns = _remaining_columns(protocol, without)
        cells = [_score_columns(cell, protocol, rows, columns) for cell in cells]
        protocol, rows = _select_columns(protocol, rows, columns)
    without_rule = sorted({r.key.candidate for r, _ in cells if rule not in r.thresholds})
    if without_rule:
        raise SettingsError(
            f"--thresholds {rule}: no thresholds for {', '.join(without_rule)}, which had no "
            f"positive validation rows; use --thresholds {HALF}"
        )
    return build_leaderboard(protocol, rows, cells, rule, metric, failures)


def _remaining_columns(protocol: ProtocolRecord, without: Sequence[str]) -> list[int]:
    """Return the columns of the labels that are not excluded."""
    for label in without:
        if label not in protocol.labels:
            raise SettingsError(
                f"--without {label}: no such label{nearest(label, protocol.labels)}"
            )
    columns = [i for i, label in enumerate(protocol.labels) if label not in without]
    if not columns:
        raise SettingsError("--without: no label is left; name fewer labels")
    return columns


def _select_columns(
    protocol: ProtocolRecord, rows: StoredRows, columns: list[int]
) -> tuple[ProtocolRecord, StoredRows]:
    """Return protocol and rows with some of the labels."""
    labels = tuple(protocol.labels[i] for i in columns)
    changes = {
        "labels": labels,
        "supports": {label: protocol.supports[label] for label in labels},
        "test_supports": tuple(
            {label: fold[label] for label in labels} for fold in protocol.test_supports
        ),
    }
    selected = StoredRows(rows.ids, rows.targets[:, columns], rows.groups, rows.has_groups)
    return protocol.model_copy(update=changes), selected


def _score_columns(
    cell: Cell, protocol: ProtocolRecord, rows: StoredRows, columns: list[int]
) -> Cell:
    """Score a cell on some of the labels."""
    record, tensors = cell
    fold = protocol.folds[record.key.fold]
    probabilities = {part: np.ascontiguousarray(tensors[part][:, columns]) for part in PARTS}
    targets = {part: rows.targets[np.array(getattr(fold, part), int)][:, columns] for part in PARTS}
    if record.tuning is None:
        thresholds = choose_thresholds(targets["validation"], probabilities["validation"])
    else:  # tuned settings include their thresholds
        thresholds = {rule: tuple(t[i] for i in columns) for rule, t in record.thresholds.items()}
    labels = [protocol.labels[i] for i in columns]
    changes = {"thresholds": thresholds, **score_cell(labels, targets, probabilities, thresholds)}
    return record.model_copy(update=changes), probabilities
