"""Protocols and cells with simulated probabilities, scored as a run scores them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from support import make_comments

from toxbench.data.groups import row_groups
from toxbench.data.protocol import Protocol
from toxbench.data.splits import draw_folds
from toxbench.evaluation.definitions import METRICS, VERSIONS
from toxbench.evaluation.metrics import Predictions, is_constant, predict
from toxbench.evaluation.thresholds import HALF, choose_thresholds
from toxbench.records import (
    PARTS,
    CellKey,
    CellRecord,
    Cost,
    Environment,
    LabelScores,
    Part,
    Scores,
    TuningRecord,
)
from toxbench.settings import SplitSettings
from toxbench.store.cells import ProtocolRecord, protocol_record
from toxbench.store.files import StoredRows
from toxbench.util.arrays import Targets

if TYPE_CHECKING:
    from toxbench.ranking.cells import Cell

TUNING = TuningRecord(
    study="s", trials=1, pruned_trials=0, failed_trials=0, finalists=1,
    metric="headline", score=0.5, default_score=None, default_won=False,
)  # fmt: skip


def scores(targets: Targets, predictions: Predictions) -> Scores:
    """Score with scikit-learn the metrics that rows need; the others are None, to save seconds."""
    precision, recall, f1, _ = precision_recall_fscore_support(
        targets, predictions, average="micro", zero_division=0
    )
    return {
        **dict.fromkeys(METRICS),
        "micro_f1": float(f1),
        "macro_f1": None,
        "subset_accuracy": float(accuracy_score(targets, predictions)),
        "micro_precision": float(precision),
        "micro_recall": float(recall),
        "micro_average_precision": None,
    }


class Table:
    """A table with its folds, and simulated cells of candidates."""

    def __init__(
        self, rows: int = 60, groups: list[str | None] | None = None, **split: Any
    ) -> None:
        self.comments = make_comments(rows, groups)
        protocol = Protocol(self.comments, draw_folds(self.comments, SplitSettings(**split)))
        self.protocol: ProtocolRecord = protocol_record(protocol, synthetic=False)
        numbers = row_groups(self.comments)
        is_grouped = [group is not None for group in self.comments.groups or [None] * rows]
        self.rows = StoredRows(
            self.comments.ids, self.comments.targets, numbers, np.array(is_grouped)
        )

    def cell(
        self,
        candidate: str = "bert",
        seed: int = 0,
        fold: int = 0,
        skill: float = 0.3,
        tuned: bool = False,
        thresholds: dict[str, tuple[float, ...]] | None = None,
        **changes: Any,
    ) -> "Cell":
        """Return a cell; probabilities are noise at skill 0 and the targets at skill 1."""
        entropy = [seed, fold, *candidate.encode("ascii")]
        noise = np.random.default_rng(entropy).random(self.comments.targets.shape)
        probabilities = (skill * self.comments.targets + (1 - skill) * noise).astype(np.float32)
        rows = self.protocol.folds[fold]
        parts: dict[Part, tuple[int, ...]] = {
            "train": rows.train, "validation": rows.validation, "test": rows.test,
        }  # fmt: skip
        targets = {part: self.comments.targets[list(parts[part])] for part in PARTS}
        tensors: dict[Part, npt.NDArray[np.float32]] = {
            part: probabilities[list(parts[part])] for part in PARTS
        }
        rules = thresholds or choose_thresholds(targets["validation"], tensors["validation"])
        fields: dict[str, Any] = {
            "key": CellKey(candidate=candidate, digest="0" * 12, fold=fold, seed=seed),
            "kind": "backbone",
        "stochastic": changes.get("kind") != "baseline",
            "distribution": "toxbench 0.1.0",
            "fingerprint": self.protocol.fingerprint,
            "weights": None,
            "parameters": None,
            "settings": None,
            "tuning": TUNING if tuned else None,
            "environment": Environment(
                device="cpu", device_name="", precision="fp32", threads=1, versions={}, commit=None
            ),
            "cost": Cost(
                train_seconds=1.0, evaluation_seconds=1.0, comments_per_second=None,
                peak_memory_bytes=None,
            ),
            "epochs": (),
            "truncated_share": None,
            "thresholds": rules,
            "versions": dict(VERSIONS),
            "metrics": {
                rule: {
                    part: scores(targets[part], predict(tensors[part], values))
                    for part in PARTS
                    if len(targets[part])
                }
                for rule, values in rules.items()
            },
            "per_label": {rule: self._label_scores(fold) for rule in rules},
            "has_constant_predictions": is_constant(predict(tensors["test"], rules[HALF])),
        }  # fmt: skip
        return CellRecord(**(fields | changes)), tensors

    def _label_scores(self, fold: int) -> tuple[LabelScores, ...]:
        """Return scores of 0 of each label, with its support in a fold."""
        zeros = dict.fromkeys(LabelScores.model_fields, 0.0)
        return tuple(
            LabelScores(**{**zeros, "label": label, "support": support})  # type: ignore[arg-type]
            for label, support in self.protocol.test_supports[fold].items()
        )

    def cells(
        self, candidate: str = "bert", seeds: Sequence[int] = (0,), **options: Any
    ) -> "list[Cell]":
        """Return the cells of every fold of the seeds."""
        folds = range(len(self.protocol.folds))
        return [self.cell(candidate, seed, fold, **options) for seed in seeds for fold in folds]
