"""Stored probabilities scored anew: other thresholds, fewer labels, another metric; no training."""

from collections.abc import Sequence

import numpy as np

from toxbench.errors import SettingsError, did_you_mean
from toxbench.evaluation.definitions import HALF, METRICS, RULES
from toxbench.evaluation.metrics import measure
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
        rule: of the thresholds that scores are at.
        without: labels that are left out of everything; thresholds are chosen without them.
        metric: to rank by.

    Raises:
        SettingsError: there is no such label or metric, no label is left, or a candidate has no
            validation rows to choose thresholds on.
        StorageError: as `load_cells`.
    """
    if rule not in RULES:
        raise SettingsError(f"thresholds {rule!r}: choose {', '.join(RULES)}")
    if metric not in METRICS:
        raise SettingsError(f"--metric {metric}: no such metric{did_you_mean(metric, METRICS)}")
    failures = load_failures(store)
    protocol, rows, cells = load_cells(store)
    is_new = any(metric not in record.metrics[HALF]["test"] for record, _ in cells)
    if without or is_new:  # a metric may be younger than the cells
        kept = _kept(protocol, without)
        cells = [_measured(cell, protocol, rows, kept) for cell in cells]
        protocol, rows = _narrowed(protocol, rows, kept)
    lacking = sorted({r.key.candidate for r, _ in cells if rule not in r.thresholds})
    if lacking:
        raise SettingsError(
            f"--thresholds {rule}: there were no positive validation rows to choose them on for "
            f"{', '.join(lacking)}"
        )
    return build_leaderboard(protocol, rows, cells, rule, metric, failures)


def _kept(protocol: ProtocolRecord, without: Sequence[str]) -> list[int]:
    for label in without:
        if label not in protocol.labels:
            raise SettingsError(
                f"--without {label}: no such label{did_you_mean(label, protocol.labels)}"
            )
    kept = [i for i, label in enumerate(protocol.labels) if label not in without]
    if not kept:
        raise SettingsError("--without: no label is left")
    return kept


def _narrowed(
    protocol: ProtocolRecord, rows: StoredRows, kept: list[int]
) -> tuple[ProtocolRecord, StoredRows]:
    labels = tuple(protocol.labels[i] for i in kept)
    changes = {
        "labels": labels,
        "supports": {label: protocol.supports[label] for label in labels},
        "test_supports": tuple(
            {label: fold[label] for label in labels} for fold in protocol.test_supports
        ),
    }
    fewer = StoredRows(rows.ids, rows.targets[:, kept], rows.groups, rows.has_groups)
    return protocol.model_copy(update=changes), fewer


def _measured(cell: Cell, protocol: ProtocolRecord, rows: StoredRows, kept: list[int]) -> Cell:
    """Score a cell again on some labels."""
    record, tensors = cell
    fold = protocol.folds[record.key.fold]
    probabilities = {part: np.ascontiguousarray(tensors[part][:, kept]) for part in PARTS}
    targets = {part: rows.targets[np.array(getattr(fold, part), int)][:, kept] for part in PARTS}
    if record.tuning is None:
        thresholds = choose_thresholds(targets["validation"], probabilities["validation"])
    else:  # searched settings brought theirs along
        thresholds = {rule: tuple(t[i] for i in kept) for rule, t in record.thresholds.items()}
    labels = [protocol.labels[i] for i in kept]
    changes = {"thresholds": thresholds, **measure(labels, targets, probabilities, thresholds)}
    return record.model_copy(update=changes), probabilities
