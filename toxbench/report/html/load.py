"""Reads the stored results of one protocol for a report."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from toxbench.plugin.contracts import Table
from toxbench.ranking.build import complete_cells, with_label_intervals
from toxbench.ranking.cells import FoldPooler, load_cells
from toxbench.ranking.ensembles import load_board_cells
from toxbench.ranking.learning_curves import Curves, load_curves
from toxbench.ranking.predictions import StoredPredictions, no_candidate_error, stack_predictions
from toxbench.ranking.rows import Leaderboard, Row, summarize_cells
from toxbench.records import CellRecord, TrialRecord
from toxbench.report.predictions import Slices, score_table
from toxbench.store.cells import CellStore, ProtocolRecord, other_protocols
from toxbench.store.manifest import Manifest, read_manifest
from toxbench.store.trials import TUNING, TrialStore
from toxbench.util.arrays import UNLABELLED

if TYPE_CHECKING:
    from toxbench.util.arrays import Targets

MAX_PLOTTED = 8  # candidates in one picture: as many as there are distinct colours


@dataclass(frozen=True)
class Search:
    """One study of ``toxbench tune``.

    Attributes:
        name: of the study.
        trials: committed so far.
    """

    name: str
    trials: tuple[TrialRecord, ...]


@dataclass(frozen=True, eq=False)
class ReportData:
    """The stored results of one protocol.

    Attributes:
        board: leaderboard with at least one row.
        records: row name -> records of its cells.
        predicted: predictions of all rows of the leaderboard for the test rows.
        ids: of every row of the data table.
        searches: complete or unfinished.
        manifest: commands and plugins that computed the results.
        other_splits: leaderboards of other splits of the table in the same results folder, without
            intervals.
        curves: scores by the number of train rows; empty without results on subsets of them.
        texts: comment of every row of the data table; None: no comment is shown.
        slices: scores of slices; None: they were not requested.
    """

    board: Leaderboard
    records: dict[str, tuple[CellRecord, ...]]
    predicted: StoredPredictions
    ids: Sequence[str]
    searches: tuple[Search, ...]
    manifest: Manifest
    other_splits: tuple[Leaderboard, ...] = ()
    curves: Curves = ()
    texts: Sequence[str] | None = None
    slices: Table | None = None

    @cached_property
    def plotted_rows(self) -> tuple[Row, ...]:
        """The best rows, at most `MAX_PLOTTED`; constant candidates only if there are no others."""
        varied = [row for row in self.board.rows if not row.constant]
        return tuple((varied or list(self.board.rows))[:MAX_PLOTTED])

    @property
    def omitted_note(self) -> str:
        """A sentence with the names of the rows that are not plotted; "" if all are."""
        omitted = [row.name for row in self.board.rows if row not in self.plotted_rows]
        return f"Not plotted: {', '.join(omitted)}." if omitted else ""

    def targets_and_probabilities(self, row: Row) -> "tuple[Targets, npt.NDArray[np.float32]]":
        """Return a row's targets and probabilities of labelled entries, ``[seed, entry]``."""
        labelled = self.predicted.codes != UNLABELLED
        probabilities = self.predicted.candidates[row.name][:, labelled]
        return np.broadcast_to(self.predicted.codes[labelled], probabilities.shape), probabilities


def load_report_data(
    store: CellStore,
    board: Leaderboard,
    texts: Sequence[str] | None = None,
    slices: Slices | None = None,
) -> ReportData:
    """Read what a leaderboard summarizes from the folder of its protocol.

    Args:
        store: the folder.
        board: of its cells; with averages, these are candidates as well.
        texts: as in `ReportData`.
        slices: of the test rows, by name.

    Raises:
        StorageError: a file is damaged, or the leaderboard has no row.
    """
    if not board.rows:
        raise no_candidate_error(store)
    protocol, stored, cells = load_board_cells(store, board)
    complete = complete_cells(cells, len(protocol.folds))
    predicted = stack_predictions(board.rows, protocol, stored, cells)
    return ReportData(
        board=with_label_intervals(board, stored, cells),
        records={row.name: tuple(record for record, _ in complete[row.key]) for row in board.rows},
        predicted=predicted,
        ids=stored.ids,
        searches=tuple(_read_searches(store)),
        manifest=read_manifest(store.folder),
        other_splits=tuple(_other_splits(store, protocol)),
        curves=load_curves(store),
        texts=texts,
        slices=score_table(predicted, FoldPooler(protocol, stored).units, slices)
        if slices
        else None,
    )


def _other_splits(store: CellStore, protocol: ProtocolRecord) -> Iterator[Leaderboard]:
    for other, record in other_protocols(store.folder.parent, store):
        if record.data_fingerprint == protocol.data_fingerprint:
            yield summarize_cells(record, (cell for cell, _ in load_cells(other)[2]))


def _read_searches(store: CellStore) -> list[Search]:
    folders = sorted(path.parent for path in (store.folder / TUNING).glob("*/trials"))
    searches = [Search(f.name, tuple(TrialStore(f / "trials").records())) for f in folders]
    return [search for search in searches if search.trials]
