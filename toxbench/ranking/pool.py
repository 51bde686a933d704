"""Pools the folds of each seed, so that each tested row counts once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toxbench.errors import SettingsError
from toxbench.evaluation.bootstrap import SampleCounts, sampling_units, sum_by_unit
from toxbench.evaluation.definitions import HALF
from toxbench.evaluation.row_counts import COUNTS, SCORES, row_counts
from toxbench.evaluation.thresholds import choose_thresholds, predict
from toxbench.records import CellRecord, Part
from toxbench.store.cells import ProtocolRecord
from toxbench.store.rows import StoredRows
from toxbench.util.arrays import Counts, Floats, Probabilities, Rows

GROUPS_NEEDED = 20  # to resample groups; with fewer, single rows are resampled
Cell = tuple[CellRecord, Mapping[Part, npt.NDArray[np.float32]]]
Thresholds = dict[str, tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class PooledScores:
    """One candidate's scores over all folds, for one thresholds rule.

    Attributes:
        samples: counts by sampling unit, for the bootstrap.
        test: score -> value over all tested rows, ``[seed]``.
        train: score -> value over all train rows, ``[seed]``.
        folds: score -> value on each fold's test rows, ``[seed, fold]``.
        groups: counts of each group's test rows, ``[seed, group, count]``; None if there are
            enough groups to resample them.
    """

    samples: SampleCounts
    test: Mapping[str, Floats]
    train: Mapping[str, Floats]
    folds: Mapping[str, Floats]
    groups: Counts | None


class FoldPooler:
    """Pools the cells of candidates of one protocol.

    Attributes:
        group_count: number of groups among the tested rows.
        by_group: whether groups are resampled instead of rows.
        has_groups: whether the table has a column of groups.
        units: number of each tested row's sampling unit, int64 ``[row]``.
    """

    def __init__(self, protocol: ProtocolRecord, rows: StoredRows) -> None:
        folds = protocol.folds
        self._targets = rows.targets
        self._test_rows = [np.array(fold.test, dtype=np.int64) for fold in folds]
        self._train_rows = [np.array(fold.train, dtype=np.int64) for fold in folds]
        self._validation_rows = np.concatenate(
            [np.array(f.validation, int) for f in protocol.folds]
        )
        self._tested = np.concatenate(self._test_rows)
        self._train_only = np.setdiff1d(np.concatenate(self._train_rows), self._tested)
        groups = rows.groups[self._tested]
        self.group_count = len(np.unique(groups))
        self.has_groups = rows.has_groups
        self.by_group = self.group_count >= GROUPS_NEEDED
        self._groups = np.unique(groups, return_inverse=True)[1].astype(np.int64)
        self.units = sampling_units(groups if self.by_group else self._tested)
        train_groups = rows.groups[self._train_only] if self.by_group else self._train_only
        self._train_only_units = sampling_units(train_groups)

    def pool(self, cells: Sequence[Cell]) -> dict[str, PooledScores]:
        """Pool one candidate's cells.

        Args:
            cells: every fold of at least one seed.

        Returns:
            thresholds rule -> scores; without the rules that a cell lacks.
        """
        seeds = sorted({record.key.seed for record, _ in cells})
        by_seed = [_cells_of_seed(cells, seed) for seed in seeds]
        thresholds = [self.thresholds(folds) for folds in by_seed]  # [seed][fold]
        rules = [r for r in thresholds[0][0] if all(r in fold for s in thresholds for fold in s)]
        return {rule: self._pool_rule(by_seed, thresholds, rule) for rule in rules}

    def thresholds(self, folds: Sequence[Cell]) -> list[Thresholds]:
        """Return the thresholds of each fold of one seed.

        A single fold uses its own validation rows. With several folds, each uses the validation
        rows of all folds except the rows that it tests. Tuned settings include their thresholds.
        """
        if len(folds) == 1 or folds[0][0].tuning is not None:
            return [record.thresholds for record, _ in folds]
        rows = self._validation_rows
        probabilities = np.concatenate([tensors["validation"] for _, tensors in folds])
        return [
            choose_thresholds(self._targets[rows[is_untested]], probabilities[is_untested])
            for is_untested in (~np.isin(rows, test) for test in self._test_rows)
        ]

    def _pool_rule(
        self,
        by_seed: Sequence[Sequence[Cell]],
        thresholds: Sequence[Sequence[Thresholds]],
        rule: str,
    ) -> PooledScores:
        test = np.zeros((len(by_seed), len(self._tested), len(COUNTS)), dtype=np.float32)
        train = np.zeros((len(by_seed), len(self._targets), len(COUNTS)), dtype=np.float32)
        ends = np.cumsum([len(rows) for rows in self._test_rows])
        for seed, folds in enumerate(by_seed):
            for fold, (_, tensors) in enumerate(folds):
                test_rows, train_rows = self._test_rows[fold], self._train_rows[fold]
                values = thresholds[seed][fold][rule]
                block = slice(ends[fold] - len(test_rows), ends[fold])
                test[seed, block] = self._count(test_rows, tensors["test"], values)
                train[seed, train_rows] += self._count(train_rows, tensors["train"], values)
        has_folds = len(self._test_rows) > 1
        return PooledScores(
            samples=SampleCounts(
                test=sum_by_unit(test, self.units),
                train=sum_by_unit(train[:, self._tested], self.units) if has_folds else None,
                train_only=sum_by_unit(train[:, self._train_only], self._train_only_units),
            ),
            test=_scores(test),
            train=_scores(train),
            folds=_fold_scores(np.split(test, ends[:-1], axis=1)),
            groups=None if self.by_group else sum_by_unit(test, self._groups),
        )

    def _count(
        self, rows: Rows, probabilities: Probabilities, thresholds: Sequence[float]
    ) -> Counts:
        return row_counts(self._targets[rows], predict(probabilities, thresholds))


def no_thresholds_error(rule: str, candidates: Sequence[str]) -> SettingsError:
    """Return the error of candidates that have no thresholds of a rule."""
    return SettingsError(
        f"--thresholds {rule}: no thresholds for {', '.join(candidates)}, which had no positive "
        f"validation rows; use --thresholds {HALF}"
    )


def _cells_of_seed(cells: Sequence[Cell], seed: int) -> list[Cell]:
    return sorted((c for c in cells if c[0].key.seed == seed), key=lambda c: c[0].key.fold)


def _scores(counts: Counts) -> dict[str, Floats]:
    sums = counts.sum(axis=1, dtype=np.float64)
    return {name: score(sums) for name, score in SCORES.items()}


def _fold_scores(folds: Sequence[Counts]) -> dict[str, Floats]:
    scores = [_scores(counts) for counts in folds]
    return {name: np.stack([fold[name] for fold in scores], axis=1) for name in SCORES}
