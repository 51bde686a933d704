"""The progress display of the Python functions, in a notebook or on a terminal."""

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import Progress
from rich.text import Text

from toxbench.benchmark.progress import (
    BAR_COLUMNS,
    TIME_LEFT,
    LiveProgress,
    TextProgress,
    styled,
    terminal_progress,
)


@contextmanager
def show_progress(enabled: bool) -> Iterator[TextProgress]:
    """Yield the progress of a run: shown in a notebook and on a terminal, else only logged."""
    if enabled and Console().is_jupyter:
        with NotebookBars(*BAR_COLUMNS, TIME_LEFT) as bars:
            yield LiveProgress(bars, bars.write, verbose=True)
    elif enabled and sys.stderr.isatty():
        with terminal_progress(logging.INFO) as progress:
            yield progress
    else:
        yield TextProgress()


class NotebookBars(Progress):
    """Lines and below them bars, in one output of a notebook's cell.

    A live display of rich itself would need ipywidgets in a notebook. This one is an output that
    is updated with each event. The bars disappear at the end.
    """

    _lines: tuple[Text, ...] = ()
    _handle: Any = None  # of IPython, of the output

    def start(self) -> None:
        """Show the output."""
        from IPython.display import display

        self._handle = display(self, display_id=True)

    def stop(self) -> None:
        """Remove the bars."""
        for task in self.task_ids:
            self.remove_task(task)
        self.refresh()

    def write(self, line: str, level: int) -> None:
        """Show a line above the bars."""
        if level >= logging.INFO:
            self._lines = (*self._lines, styled(line, level))
            self.refresh()

    def update(self, *arguments: Any, **values: Any) -> None:
        """Change a bar and show it."""
        super().update(*arguments, **values)
        self.refresh()

    def refresh(self) -> None:
        """Update the output."""
        if self._handle is not None:
            self._handle.update(self)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the lines and the bars."""
        return (*self._lines, *super().get_renderables())
