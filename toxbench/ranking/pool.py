"""Pools the folds of each seed, so that each tested row counts once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toxbench.errors import SettingsError
from toxbench.evaluation.bootstrap import (
    SampleCounts,
    effective_number,
    sampling_units,
    sum_by_unit,
)
from toxbench.evaluation.definitions import HALF
from toxbench.evaluation.row_counts import SCORES, row_columns
from toxbench.evaluation.thresholds import choose_thresholds, predict
from toxbench.records import CellRecord, Part
from toxbench.store.cells import ProtocolRecord
from toxbench.store.files import StoredRows
from toxbench.util.arrays import Counts, Floats, Probabilities, Rows

Cell = tuple[CellRecord, Mapping[Part, npt.NDArray[np.float32]]]
Thresholds = dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class ScoreNames:
    """The scores that are needed at the thresholds of one rule.

    Attributes:
        test: of the test rows.
        gaps: those whose gaps, and train scores, are needed as well.
    """

    test: tuple[str, ...]
    gaps: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PooledScores:
    """One candidate's scores over all folds, for one thresholds rule.

    Attributes:
        samples: counts by sampling unit, for the bootstrap.
        test: score -> value over all tested rows, ``[seed]``.
        train: score -> value over all train rows, ``[seed]``.
    """

    samples: SampleCounts
    test: Mapping[str, Floats]
    train: Mapping[str, Floats]


class FoldPooler:
    """Pools the cells of candidates of one protocol.

    Attributes:
        units: number of each tested row's sampling unit, its group, int64 ``[row]``.
        effective_units: effective number of sampling units among the tested rows.
        group_count: number of groups of the table's group column among the tested rows.
        single_rows: number of tested rows without a group; each is a sampling unit by itself.
    """

    def __init__(self, protocol: ProtocolRecord, rows: StoredRows) -> None:
        folds = protocol.folds
        self._codes, self._targets = rows.codes, rows.targets
        self._test_rows = [np.array(fold.test, dtype=np.int64) for fold in folds]
        self._train_rows = [np.array(fold.train, dtype=np.int64) for fold in folds]
        self._validation_rows = np.concatenate(
            [np.array(f.validation, int) for f in protocol.folds]
        )
        self._tested = np.concatenate(self._test_rows)
        self._train_only = np.setdiff1d(np.concatenate(self._train_rows), self._tested)
        groups, is_grouped = rows.groups[self._tested], rows.is_grouped[self._tested]
        self.units = sampling_units(groups)
        self.effective_units = effective_number(np.bincount(self.units).astype(np.float64))
        self.group_count = len(np.unique(groups[is_grouped]))
        self.single_rows = int((~is_grouped).sum())
        self._train_only_units = sampling_units(rows.groups[self._train_only])

    def pool(
        self, cells: Sequence[Cell], needed: Mapping[str, ScoreNames]
    ) -> dict[str, PooledScores]:
        """Pool one candidate's cells.

        Args:
            cells: every fold of at least one seed.
            needed: thresholds rule -> scores.

        Returns:
            thresholds rule -> scores; without the rules that a cell lacks.
        """
        seeds = sorted({record.key.seed for record, _ in cells})
        by_seed = [_cells_of_seed(cells, seed) for seed in seeds]
        thresholds = [self.thresholds(folds) for folds in by_seed]  # [seed][fold]
        rules = [r for r in needed if all(r in fold for s in thresholds for fold in s)]
        return {r: self._pool_rule(by_seed, thresholds, r, needed[r]) for r in rules}

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
        names: ScoreNames,
    ) -> PooledScores:
        values = [[fold[rule] for fold in of_seed] for of_seed in thresholds]
        tests = [
            np.stack(
                [
                    self._count(rows, folds[k][1]["test"], of_seed[k], names.test)
                    for folds, of_seed in zip(by_seed, values, strict=True)
                ]
            )
            for k, rows in enumerate(self._test_rows)
        ]  # of each fold: [seed, row, count]
        test = np.concatenate(tests, axis=1)
        train = self._train_counts(by_seed, values, names.gaps) if names.gaps else None
        has_folds = len(self._test_rows) > 1
        return PooledScores(
            samples=SampleCounts(
                test=sum_by_unit(test, self.units),
                train=None
                if train is None or not has_folds
                else sum_by_unit(train[:, self._tested], self.units),
                train_only=None
                if train is None
                else sum_by_unit(train[:, self._train_only], self._train_only_units),
                scores=names.test,
                gaps=names.gaps,
                folds=_fold_scores(tests, names.test) if has_folds else {},
                fold_ratio=len(self._tested) / sum(map(len, self._train_rows)),
            ),
            test=_scores(test, names.test),
            train={} if train is None else _scores(train, names.gaps),
        )

    def _train_counts(
        self,
        by_seed: Sequence[Sequence[Cell]],
        thresholds: Sequence[Sequence[Sequence[float]]],
        names: Sequence[str],
    ) -> Counts:
        """Add up the folds' counts of each row of the table, ``[seed, row, count]``."""
        totals = []
        for folds, values in zip(by_seed, thresholds, strict=True):
            parts = [
                self._count(rows, folds[k][1]["train"], values[k], names)
                for k, rows in enumerate(self._train_rows)
            ]
            total = np.zeros((len(self._targets), parts[0].shape[1]), dtype=np.float32)
            for rows, part in zip(self._train_rows, parts, strict=True):
                total[rows] += part
            totals.append(total)
        return np.stack(totals)

    def _count(
        self,
        rows: Rows,
        probabilities: Probabilities,
        thresholds: Sequence[float],
        names: Sequence[str],
    ) -> Counts:
        predictions = predict(probabilities, thresholds)
        return row_columns(self._codes[rows], predictions, probabilities, names)


def no_thresholds_error(rule: str, candidates: Sequence[str]) -> SettingsError:
    """Return the error of candidates that have no thresholds of a rule."""
    return SettingsError(
        f"--thresholds {rule}: no thresholds for {', '.join(candidates)}, which had no positive "
        f"validation rows; use --thresholds {HALF}"
    )


def _cells_of_seed(cells: Sequence[Cell], seed: int) -> list[Cell]:
    return sorted((c for c in cells if c[0].key.seed == seed), key=lambda c: c[0].key.fold)


def _scores(counts: Counts, names: Sequence[str]) -> dict[str, Floats]:
    sums = counts.sum(axis=1, dtype=np.float64)
    return {name: SCORES[name](sums) for name in names}


def _fold_scores(folds: Sequence[Counts], names: Sequence[str]) -> dict[str, Floats]:
    scores = [_scores(counts, names) for counts in folds]
    return {name: np.stack([fold[name] for fold in scores], axis=1) for name in names}
