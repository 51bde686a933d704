"""The report, as the command and the Python function write it, and as a notebook shows it."""

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from toxbench.records import TrialRecord
from toxbench.report.html.load import ReportData
from toxbench.report.html.page import FILE, render_report
from toxbench.report.tuning import fanova_importances
from toxbench.util.atomic import ANY_MODE, write_atomically

_HEIGHT = 800  # pixels of the frame in a notebook


class ReportFile(os.PathLike[str]):
    """The path of a written report; a notebook shows the page itself."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        # A frame keeps the styles of the page and of the notebook apart.
        page = html.escape(self.path.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{page}" width="100%" height="{_HEIGHT}" frameborder="0"></iframe>'


def write_report(folder: Path, data: ReportData, max_mode: int = ANY_MODE) -> Path:
    """Write report.html into a folder, with these permission bits at most; return its path.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = folder / FILE
    write_atomically(path, render_report(data, _importances).encode("utf-8"), max_mode)
    return path


def _importances(trials: Sequence[TrialRecord]) -> Mapping[str, float]:
    from toxbench.tuning.study import in_memory_study  # optuna takes a second to import

    return fanova_importances(in_memory_study(trials))
