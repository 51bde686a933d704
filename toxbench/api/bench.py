"""The results of one table and split, as the Python functions return them."""

import base64
import html
import shutil
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from toxbench.api.page import ReportFile, write_report
from toxbench.errors import DataError, SettingsError, did_you_mean
from toxbench.evaluation.curves import confusion_counts
from toxbench.evaluation.definitions import HALF, HEADLINES, RULES
from toxbench.inference.model import predict
from toxbench.ranking.ensembles import load_board_cells
from toxbench.ranking.predictions import load_predictions, prediction_columns
from toxbench.ranking.rows import Leaderboard, Row
from toxbench.records import PARTS, Part
from toxbench.report.figures import svg_bytes
from toxbench.report.html.load import ReportData, load_report_data
from toxbench.report.html.page import render_notebook_table
from toxbench.report.html.plots import CAPTIONS, PLOTS
from toxbench.report.labels import label_records
from toxbench.report.leaderboard import (
    cell_records,
    compare_candidates,
    leaderboard_records,
    leaderboard_tables,
)
from toxbench.report.predictions import TABLES, DisplayOptions
from toxbench.report.tables import table_lines
from toxbench.store.cells import CellStore

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Bench:
    """The stored results of one table and split; a notebook shows them as a leaderboard.

    `toxbench.run`, `toxbench.tune` and `toxbench.load` return it. Candidates are named as on the
    leaderboard. A method raises `SettingsError` for an unknown name and `StorageError` for a
    damaged file. Columns and all other methods are those of `leaderboard`: ``bench["micro_f1"]``,
    ``bench.set_index("name")``.

    Attributes:
        folder: of the results.
    """

    def __init__(self, store: CellStore, board: Leaderboard) -> None:
        self.folder: Path = store.folder
        self._store = store
        self._board = board

    def __getitem__(self, key: Any) -> Any:
        return self.leaderboard[key]

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self.leaderboard)

    def __len__(self) -> int:
        return len(self._board.rows)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.leaderboard, name)

    def __repr__(self) -> str:
        table = leaderboard_tables(self._board)[0]
        width = shutil.get_terminal_size().columns
        return "\n".join(line.text for line in table_lines(table, width))

    def _repr_html_(self) -> str:
        return render_notebook_table(leaderboard_tables(self._board)[0])

    @property
    def leaderboard(self) -> pd.DataFrame:
        """The candidates, the best first, as unrounded numbers.

        One row for each candidate with its ``name``, ``rank``, ``weights``, ``parameters``,
        ``seeds``, and a mean and a sample standard deviation (``_sd``) for each score in [0, 1],
        for gaps (train minus test), seconds, comments per second and bytes. The ends of 95 %
        confidence intervals have the suffixes ``_low`` and ``_high``. The headline scores come
        first, because a notebook shows only the first and the last columns.
        """
        frame = pd.DataFrame(list(leaderboard_records(self._board)))
        frame["name"] = [row.name for row in self._board.rows]
        first = ["name", "rank", *HEADLINES, *(f"{name}_gap" for name in HEADLINES)]
        return frame.reindex(columns=[*first, *frame.columns.difference(first, sort=False)])

    @property
    def cells(self) -> pd.DataFrame:
        """The scores of each stored cell at threshold 0.5.

        One row for each ``candidate``, ``seed``, ``fold``, ``part`` (train, validation, test) and
        ``metric``, with its ``value``: None if it is undefined.
        """
        cells = (record for record, _ in load_board_cells(self._store, self._board)[2])
        return pd.DataFrame(cell_records(self._board, cells))

    @property
    def labels(self) -> pd.DataFrame:
        """The scores of each label on test rows, mean over cells.

        One row for each ``candidate`` and ``label`` with ``support`` (positive test rows),
        ``precision``, ``recall`` and ``f1`` at threshold 0.5, and ``average_precision``. The ends
        of 95 % intervals, such as ``f1_low``, are None for fewer than ten positive test rows.
        """
        return pd.DataFrame(label_records(self._data.board, self._data.records))

    def predictions(
        self, candidate: str, part: Part = "test", thresholds: str = HALF
    ) -> pd.DataFrame:
        """Return the stored predictions of a candidate.

        Args:
            candidate: its name.
            part: ``train``, ``validation`` or ``test``.
            thresholds: rule: ``0.5``, ``global``, ``accuracy`` or ``per-label``.

        Returns:
            one row for each ``seed``, ``fold``, ``id`` and ``label``, with ``target`` and
            ``predicted`` (0 or 1), and ``probability``.
        """
        _check("part", part, PARTS)
        _check("thresholds", thresholds, RULES)
        row, sources = self._row(candidate), load_board_cells(self._store, self._board)
        return pd.DataFrame(prediction_columns(row, *sources, part, thresholds))

    def confusion(self, candidate: str) -> pd.DataFrame:
        """Return each label's confusion counts on test rows at threshold 0.5, mean over seeds."""
        predicted = self._data.predicted
        probabilities = predicted.candidates[self._row(candidate).name]
        counts = map(vars, confusion_counts(predicted.codes, probabilities))
        labels = self._board.protocol.labels
        return pd.DataFrame([{"label": n} | c for n, c in zip(labels, counts, strict=True)])

    def compare(self, *candidates: str) -> pd.DataFrame:
        """Return the paired differences of every pair of candidates, by default of all.

        One row for each pair and score (``micro_f1`` and ``subset_accuracy``, also at tuned
        thresholds, and ``micro_average_precision``): ``first``, ``second``, ``difference``, its
        95 % interval ``low`` to ``high``, ``p`` and ``p_holm``, ``first_better`` and
        ``equivalent`` (probabilities), ``detectable``, and ``verdict`` for the first two scores.

        Raises:
            DataError: the test rows or the seeds are too few to test a pair.
        """
        table = compare_candidates(self._board, candidates)
        if not table.records:
            raise DataError(f"no pair of these candidates can be tested. {table.notes[0]}")
        return pd.DataFrame(list(table.records))

    def errors(self, table: str = "missed", limit: int = 20) -> pd.DataFrame:
        """Return test rows that are worth reading, by id.

        Args:
            table: ``missed`` (rows that every candidate gets wrong), ``disagree`` (rows on which
                candidates disagree) or ``labels`` (labels that look wrong).
            limit: largest number of rows.
        """
        _check("table", table, TABLES)
        shown = TABLES[table](load_predictions(self._store), DisplayOptions(limit))
        return pd.DataFrame(list(shown.records), columns=None if shown.records else shown.headers)

    def report(self) -> ReportFile:
        """Write report.html into the folder, and return its path; a notebook shows the page."""
        return ReportFile(write_report(self.folder, self._data))

    def plot(self) -> "Plots":
        """Return matplotlib figures: ``forest``, ``gap``, ``cost`` and ``learning``."""
        return Plots({name: draw(self._data) for name, draw in PLOTS.items()})

    def predict(self, comments: Sequence[str], **options: Any) -> pd.DataFrame:
        """Predict the labels of comments with the best stored model, as `toxbench.predict`."""
        return predict(self.folder, comments, **options)

    @cached_property
    def _data(self) -> ReportData:
        return load_report_data(self._store, self._board)

    def _row(self, candidate: str) -> Row:
        rows = {row.name: row for row in self._board.rows}
        _check("candidate", candidate, rows)
        return rows[candidate]


class Plots(dict[str, "Figure"]):
    """Figures by name; a notebook shows all of them."""

    def _repr_html_(self) -> str:
        return "".join(_figure_html(name, figure) for name, figure in self.items())


def _figure_html(name: str, figure: "Figure") -> str:
    """Return a figure and its caption, as an image, because ids in two figures may be the same."""
    data = base64.b64encode(svg_bytes(figure)).decode("ascii")
    return (
        f'<p style="max-width: 60rem"><img alt="{name}" src="data:image/svg+xml;base64,{data}">'
        f"<br>{html.escape(CAPTIONS.get(name, ''))}</p>"
    )


def _check(argument: str, value: str, choices: Iterable[str]) -> None:
    """Raise `SettingsError` if the value of an argument is not among the choices."""
    names = list(choices)
    if value not in names:
        raise SettingsError(
            f"no {argument} is called {value!r}{did_you_mean(value, names)}; choose one of: "
            f"{', '.join(names) or 'none'}"
        )
