"""Rescores stored probabilities: other thresholds, fewer labels, another metric; no training."""

from collections.abc import Sequence
from dataclasses import replace

from toxbench.errors import SettingsError, did_you_mean
from toxbench.evaluation.definitions import HALF, METRICS, RANKING_METRIC, RULES
from toxbench.ranking.build import build_leaderboard
from toxbench.ranking.cells import load_cells, load_failures, score_again
from toxbench.ranking.pool import no_thresholds_error
from toxbench.ranking.quoted import load_quoted
from toxbench.ranking.rows import Leaderboard
from toxbench.store.cells import CellStore, ProtocolRecord
from toxbench.store.rows import StoredRows
from toxbench.util.text import safe_quote


def rescore(
    store: CellStore, rule: str = HALF, without: Sequence[str] = (), metric: str = RANKING_METRIC
) -> Leaderboard:
    """Build a leaderboard of stored probabilities; nothing is written.

    The labels in ``without`` are excluded, and thresholds are chosen without them.

    Raises:
        SettingsError: the rule, a label or the metric does not exist, all labels are excluded, or
            a candidate has no positive validation rows to choose thresholds on.
        StorageError: as `load_cells`.
    """
    if rule not in RULES:
        raise SettingsError(f"thresholds {safe_quote(rule)}: choose {', '.join(RULES)}")
    if metric not in METRICS:
        hint = did_you_mean(metric, METRICS)
        raise SettingsError(f"--metric {safe_quote(metric)}: no such metric{hint}")
    failures = load_failures(store)
    protocol, rows, cells = load_cells(store)
    if without:
        columns = _remaining_columns(protocol, without)
        cells = [score_again(cell, protocol, rows, columns) for cell in cells]
        protocol, rows = _select_columns(protocol, rows, columns)
    without_rule = sorted({r.key.candidate for r, _ in cells if rule not in r.thresholds})
    if without_rule:
        raise no_thresholds_error(rule, without_rule)
    quoted = () if without else load_quoted(store)  # publications score all labels
    return build_leaderboard(protocol, rows, cells, rule, metric, failures, quoted)


def _remaining_columns(protocol: ProtocolRecord, without: Sequence[str]) -> list[int]:
    """Return the columns of the labels that are not excluded."""
    check_labels(protocol.labels, "--without", without)
    columns = [i for i, label in enumerate(protocol.labels) if label not in without]
    if not columns:
        raise SettingsError("--without: no label is left; name fewer labels")
    return columns


def check_labels(labels: Sequence[str], option: str, names: Sequence[str]) -> None:
    """Raise `SettingsError` for a name that is not a label."""
    for name in names:
        if name not in labels:
            hint = did_you_mean(name, labels)
            raise SettingsError(f"{option} {safe_quote(name)}: no such label{hint}")


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
    return protocol.model_copy(update=changes), replace(rows, codes=rows.codes[:, columns])
