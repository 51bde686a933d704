"""Stored cells: checked, scored by this toxbench, and pooled so that each row counts once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toxbench.errors import SettingsError, StorageError
from toxbench.evaluation.bootstrap import (
    SampleCounts,
    effective_number,
    sampling_units,
    sum_by_unit,
)
from toxbench.evaluation.definitions import HALF, METRICS, VERSIONS
from toxbench.evaluation.row_counts import SCORES, row_columns
from toxbench.evaluation.thresholds import choose_thresholds, fit_calibration, predict
from toxbench.records import FIXED_RULE, PARTS, CellRecord, FailureRecord, Part
from toxbench.store.cells import CellStore, ProtocolRecord
from toxbench.store.files import StoredRows
from toxbench.util.arrays import Counts, Floats, Probabilities, Rows, known_targets

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


def load_failures(*stores: CellStore) -> list[FailureRecord]:
    """Read the failures of cells; of a cell in several folders, the first is read.

    Read them before the cells: a run removes a failure after it has stored the cell.

    Raises:
        StorageError: a file is damaged, or a newer toxbench wrote it.
    """
    records = (r for store in reversed(stores) for r in store.failures.records())
    return list({record.key: record for record in records}.values())


def load_cells(*stores: CellStore) -> tuple[ProtocolRecord, StoredRows, list[Cell]]:
    """Read the input of a leaderboard; of a cell in several folders, the first is read.

    Cells that were stored with other versions of the metrics or rules are scored again.

    Raises:
        StorageError: a folder holds no results, a file is damaged, or the folders hold results
            of different protocols.
    """
    protocol = stores[0].protocol()
    for store in stores[1:]:
        check_same_protocol(protocol, store.protocol(), store.folder)
    rows = stores[0].rows()
    check_rows_match(protocol, rows, stores[0].folder)
    stored = (cell for store in reversed(stores) for cell in store.cells())
    cells = {record.key: (record, tensors) for record, tensors in stored}
    for record, tensors in cells.values():
        check_cell_shape(protocol, record, tensors)
    return protocol, rows, [_up_to_date(cell, protocol, rows) for cell in cells.values()]


def score_again(
    cell: Cell, protocol: ProtocolRecord, rows: StoredRows, columns: Sequence[int]
) -> Cell:
    """Score the stored probabilities of a cell for the labels of these columns."""
    # scikit-learn takes a second to import, and most leaderboards need no cell scored again.
    from toxbench.evaluation.metrics import score_cell

    record, tensors = cell
    fold, chosen = protocol.folds[record.key.fold], list(columns)
    probabilities = {part: np.ascontiguousarray(tensors[part][:, chosen]) for part in PARTS}
    codes = {part: rows.codes[np.array(getattr(fold, part), int)][:, chosen] for part in PARTS}
    validation = known_targets(codes["validation"]), probabilities["validation"]
    if record.tuning is None:
        thresholds = choose_thresholds(*validation)
    else:  # tuned settings include their thresholds
        thresholds = {rule: tuple(t[i] for i in chosen) for rule, t in record.thresholds.items()}
    labels = [protocol.labels[i] for i in chosen]
    calibration = fit_calibration(*validation)
    scores = score_cell(labels, codes, probabilities, thresholds)
    changes = {"thresholds": thresholds, "calibration": calibration, **scores}
    return record.model_copy(update=changes), probabilities


def _up_to_date(cell: Cell, protocol: ProtocolRecord, rows: StoredRows) -> Cell:
    """Score a cell again if a metric or a thresholds rule has another version, or is missing."""
    record = cell[0]
    is_ours = record.fingerprint == protocol.fingerprint
    if not is_ours or (record.versions == VERSIONS and _is_complete(record, protocol)):
        return cell
    return score_again(cell, protocol, rows, range(len(protocol.labels)))


def _is_complete(record: CellRecord, protocol: ProtocolRecord) -> bool:
    """Whether each thresholds rule has all metrics of all parts, and the scores of all labels."""
    fold = protocol.folds[record.key.fold]
    parts = {part for part in PARTS if getattr(fold, part)}
    return record.metrics.keys() == record.per_label.keys() == record.thresholds.keys() and all(
        scores.keys() == parts
        and all(metrics.keys() == METRICS.keys() for metrics in scores.values())
        and tuple(s.label for s in record.per_label[rule]) == protocol.labels
        for rule, scores in record.metrics.items()
    )


def diff_protocols(first: ProtocolRecord, second: ProtocolRecord) -> list[str]:
    """Return descriptions of the parts in which two protocols differ."""
    differences: list[str] = []
    if first.data_fingerprint != second.data_fingerprint:
        tables = (f"{p.name} with {p.rows} rows" for p in (first, second))
        differences.append(f"the table ({' and '.join(tables)})")
    if first.labels != second.labels:
        labels = sorted(set(first.labels) ^ set(second.labels))
        differences.append(f"the labels ({', '.join(labels) or 'their order'})")
    if first.folds != second.folds:
        splits = (_describe_split(p) for p in (first, second))
        differences.append(f"the split ({' and '.join(splits)})")
    return differences


def check_same_protocol(protocol: ProtocolRecord, candidate: ProtocolRecord, folder: Path) -> None:
    """Raise `StorageError` with the differences if the folder's protocol is another one."""
    if protocol.fingerprint != candidate.fingerprint:
        differences = ", ".join(diff_protocols(protocol, candidate)) or "the fingerprint"
        raise StorageError(
            f"{folder} was measured with another protocol, which differs in {differences}; only "
            "results of one protocol can be compared"
        )


def check_rows_match(protocol: ProtocolRecord, rows: StoredRows, folder: Path) -> None:
    """Refuse a protocol and stored rows of different tables.

    Raises:
        StorageError: with the remedy.
    """
    shape = (protocol.rows, len(protocol.labels))
    fits = rows.codes.shape == shape and len(rows.ids) == len(rows.groups) == protocol.rows
    if not fits:
        raise StorageError(
            f"{folder}: protocol.json and rows.safetensors are of different tables; repeat the "
            "same toxbench run to repair them, without training"
        )


def check_cell_shape(
    protocol: ProtocolRecord, record: CellRecord, tensors: Mapping[Part, npt.NDArray[np.float32]]
) -> None:
    """Refuse a cell of this protocol whose probabilities are of other rows or labels.

    Raises:
        StorageError: with the remedy.
    """
    if record.fingerprint != protocol.fingerprint:
        return  # `summarize_cells` refuses it
    folds = protocol.folds
    fold = folds[record.key.fold] if 0 <= record.key.fold < len(folds) else None
    labels = len(protocol.labels)
    fits = fold is not None and all(
        tensors[part].shape == (len(getattr(fold, part)), labels) for part in PARTS
    )
    fits = fits and len(record.thresholds.get(FIXED_RULE, ())) == labels
    if not fits:
        raise StorageError(
            f"cell {record.key.stem} has other rows or labels than its protocol; remove its file "
            "and run the same command again"
        )


def _describe_split(protocol: ProtocolRecord) -> str:
    tested = sum(len(fold.test) for fold in protocol.folds)
    folds = len(protocol.folds)
    return f"{folds} folds, {tested} test rows" if folds > 1 else f"{tested} test rows"
