"""Every fold of a seed put together, so that each tested row counts once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toxbench.evaluation.bootstrap import SampleCounts, sampling_units, sum_by_unit
from toxbench.evaluation.row_counts import COUNTS, SCORES, row_counts
from toxbench.evaluation.thresholds import choose_thresholds, predict
from toxbench.records import CellRecord, Part
from toxbench.store.cells import ProtocolRecord
from toxbench.store.rows import StoredRows
from toxbench.util.arrays import Counts, Floats, Probabilities

FEWEST_GROUPS = 20  # below, groups are too few to be resampled
Cell = tuple[CellRecord, Mapping[Part, npt.NDArray[np.float32]]]
Thresholds = dict[str, tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class PooledScores:
    """What one candidate's predictions count to, for one thresholds rule.

    Attributes:
        evidence: by the units that are resampled.
        test: score -> value over all tested rows, ``[seed]``.
        train: the same over train rows.
        folds: score -> value on each fold's test rows, ``[seed, fold]``.
        groups: counts of each group's test rows, ``[seed, group, count]``; None where groups are
            many enough to be resampled.
    """

    evidence: SampleCounts
    test: Mapping[str, Floats]
    train: Mapping[str, Floats]
    folds: Mapping[str, Floats]
    groups: Counts | None


class FoldPooler:
    """Puts the cells of one protocol together."""

    def __init__(self, protocol: ProtocolRecord, rows: StoredRows) -> None:
        self._targets = rows.targets
        self._tests = [np.array(fold.test, dtype=np.int64) for fold in protocol.folds]
        self._trains = [np.array(fold.train, dtype=np.int64) for fold in protocol.folds]
        self._validations = [np.array(fold.validation, dtype=np.int64) for fold in protocol.folds]
        self._tested = np.concatenate(self._tests)
        self._elsewhere = np.setdiff1d(np.concatenate(self._trains), self._tested)
        groups = rows.groups[self._tested]
        self.group_count = len(np.unique(groups))
        self.has_groups = rows.has_groups
        self.by_group = self.group_count >= FEWEST_GROUPS
        self._groups = np.unique(groups, return_inverse=True)[1].astype(np.int64)
        self._units = sampling_units(groups if self.by_group else self._tested)
        others = rows.groups[self._elsewhere] if self.by_group else self._elsewhere
        self._units_elsewhere = sampling_units(others)

    @property
    def units(self) -> npt.NDArray[np.int64]:
        """What each tested row is resampled with, ``[row]``."""
        return self._units

    def pool(self, cells: Sequence[Cell]) -> dict[str, PooledScores]:
        """Put one candidate's cells together.

        Args:
            cells: every fold of some seeds, at least one.

        Returns:
            thresholds rule -> counts; a rule that a cell has not is left out.
        """
        seeds = sorted({record.key.seed for record, _ in cells})
        by_seed = [_of_seed(cells, seed) for seed in seeds]
        chosen = [self.thresholds(folds) for folds in by_seed]
        rules = [rule for rule in chosen[0][0] if all(rule in fold for s in chosen for fold in s)]
        return {rule: self._pooled(by_seed, chosen, rule) for rule in rules}

    def thresholds(self, folds: Sequence[Cell]) -> list[Thresholds]:
        """Return each fold's thresholds of one seed.

        One fold chooses on its own validation rows. Several choose on all their validation rows
        together, each without the rows that it tests; searched settings bring theirs along.
        """
        if len(folds) == 1 or folds[0][0].tuning is not None:
            return [record.thresholds for record, _ in folds]
        rows = np.concatenate(self._validations)
        probabilities = np.concatenate([tensors["validation"] for _, tensors in folds])
        return [
            choose_thresholds(self._targets[rows[kept]], probabilities[kept])
            for kept in (~np.isin(rows, test) for test in self._tests)
        ]

    def _pooled(
        self, by_seed: Sequence[Sequence[Cell]], chosen: Sequence[Sequence[Thresholds]], rule: str
    ) -> PooledScores:
        test = np.zeros((len(by_seed), len(self._tested), len(COUNTS)), dtype=np.float32)
        train = np.zeros((len(by_seed), len(self._targets), len(COUNTS)), dtype=np.float32)
        ends = np.cumsum([len(rows) for rows in self._tests])
        for seed, (folds, thresholds) in enumerate(zip(by_seed, chosen, strict=True)):
            for fold, (_, tensors) in enumerate(folds):
                cut, tested, trained = thresholds[fold][rule], self._tests[fold], self._trains[fold]
                place = slice(ends[fold] - len(tested), ends[fold])
                test[seed, place] = self._count(tested, tensors["test"], cut)
                train[seed, trained] += self._count(trained, tensors["train"], cut)
        several = len(self._tests) > 1
        return PooledScores(
            evidence=SampleCounts(
                test=sum_by_unit(test, self._units),
                train=sum_by_unit(train[:, self._tested], self._units) if several else None,
                train_elsewhere=sum_by_unit(train[:, self._elsewhere], self._units_elsewhere),
            ),
            test=_scores(test),
            train=_scores(train),
            folds=_fold_scores(np.split(test, ends[:-1], axis=1)),
            groups=None if self.by_group else sum_by_unit(test, self._groups),
        )

    def _count(
        self,
        rows: npt.NDArray[np.int64],
        probabilities: Probabilities,
        thresholds: Sequence[float],
    ) -> Counts:
        return row_counts(self._targets[rows], predict(probabilities, thresholds))


def _of_seed(cells: Sequence[Cell], seed: int) -> list[Cell]:
    return sorted((c for c in cells if c[0].key.seed == seed), key=lambda c: c[0].key.fold)


def _scores(counts: Counts) -> dict[str, Floats]:
    sums = counts.sum(axis=1, dtype=np.float64)
    return {name: of(sums) for name, of in SCORES.items()}


def _fold_scores(folds: Sequence[Counts]) -> dict[str, Floats]:
    scores = [_scores(counts) for counts in folds]
    return {name: np.stack([fold[name] for fold in scores], axis=1) for name in SCORES}
