"""Everything that a report tells of one protocol, read from its folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from toxbench.ranking.build import cells_of_row, load_leaderboard
from toxbench.ranking.cells import load_cells
from toxbench.ranking.predictions import StoredPredictions, no_candidate_error, stack_predictions
from toxbench.ranking.rows import Leaderboard, Row
from toxbench.records import CellRecord, TrialRecord
from toxbench.store.cells import CellStore
from toxbench.store.manifest import Manifest, read_manifest
from toxbench.store.trials import TUNING, TrialStore

if TYPE_CHECKING:
    from toxbench.util.arrays import Targets

MAX_PLOTTED = 8  # candidates in one picture; more cannot be told apart


@dataclass(frozen=True)
class Search:
    """One study of ``toxbench tune``."""

    name: str
    trials: tuple[TrialRecord, ...]


@dataclass(frozen=True, eq=False)
class ReportData:
    """What is stored of one protocol.

    Attributes:
        records: of every cell of a row of the leaderboard, by the row's name.
        predicted: what every row said of the test rows.
        ids: of every row of the table.
        searches: finished or not.
        texts: of every row of the table, to show those of some; None: no comment is shown.
    """

    board: Leaderboard
    records: dict[str, tuple[CellRecord, ...]]
    predicted: StoredPredictions
    ids: Sequence[str]
    searches: tuple[Search, ...]
    manifest: Manifest
    texts: Sequence[str] | None = None

    @cached_property
    def drawn(self) -> tuple[Row, ...]:
        """The rows that pictures show one by one: the best ones that are no constant."""
        telling = [row for row in self.board.rows if not row.constant]
        return tuple((telling or list(self.board.rows))[:MAX_PLOTTED])

    @property
    def omitted_note(self) -> str:
        """A sentence on the rows that pictures leave out; "" where there are none."""
        left = [row.name for row in self.board.rows if row not in self.drawn]
        return f"Not drawn: {', '.join(left)}." if left else ""

    def entries(self, row: Row) -> "tuple[Targets, npt.NDArray[np.float32]]":
        """Return a row's targets and probabilities of all seeds, ``[seed, row, label]``."""
        probabilities = self.predicted.candidates[row.name]
        return np.broadcast_to(self.predicted.targets, probabilities.shape), probabilities


def load_findings(store: CellStore, texts: Sequence[str] | None = None) -> ReportData:
    """Read a protocol's folder.

    Raises:
        StorageError: it is none of toxbench's, a file in it is damaged, or no candidate has a
            seed with every fold.
    """
    board = load_leaderboard(store)
    if not board.rows:
        raise no_candidate_error(store)
    protocol, stored, cells = load_cells(store)
    folds = len(protocol.folds)
    records = {
        row.name: tuple(record for record, _ in cells_of_row(row, cells, folds))
        for row in board.rows
    }
    return ReportData(
        board=board,
        records=records,
        predicted=stack_predictions(board.rows, protocol, stored, cells),
        ids=stored.ids,
        searches=tuple(_searches(store)),
        manifest=read_manifest(store.folder),
        texts=texts,
    )


def _searches(store: CellStore) -> list[Search]:
    folders = sorted(path.parent for path in (store.folder / TUNING).glob("*/trials"))
    found = [Search(f.name, tuple(TrialStore(f / "trials").records())) for f in folders]
    return [search for search in found if search.trials]
