"""TensorBoard as a tracker: one run for each cell. Needs pip install "toxbench[tensorboard]".

Event files are written with TensorBoard's `RecordWriter` instead of its `EventFileWriter`, which
puts the name of the machine into every file name.
"""

import shutil
import time
from pathlib import Path
from typing import Any

from toxbench import (
    CellKey,
    CellRecord,
    EpochRecord,
    RunRecord,
    Tracker,
    cell_facts,
    cell_numbers,
    epoch_numbers,
    hookimpl,
)


class EventFile:
    """The event file of one cell; a new one replaces the folder of an older one."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        path = folder / f"events.out.tfevents.{time.time_ns():020d}.toxbench"
        self._writer = RecordWriter(path.open("wb"))
        self._write(file_version="brain.Event:2")
        # An open TensorBoard discards the points of the replaced file.
        self._write(session_log=SessionLog(status=SessionLog.START))

    def write_numbers(self, step: int, numbers: dict[str, float]) -> None:
        """Write one point of each curve."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._write(step=step, summary=Summary(value=values))

    def finish(self, name: str, facts: dict[str, str | int | float | bool]) -> None:
        """Write the facts of the cell for the HPARAMS page, and close the file."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        self._write(summary=hparams_pb(facts, trial_id=name))
        self.close()

    def close(self) -> None:
        """Close the file if it is open."""
        if not self._writer.closed:
            self._writer.close()

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.write(Event(wall_time=time.time(), **content).SerializeToString())
        self._writer.flush()


class TensorBoard:
    """Writes epochs and cells into event files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open_files: dict[CellKey, EventFile] = {}
        self._run: RunRecord | None = None

    @hookimpl
    def toxbench_run_started(self, run: RunRecord) -> None:
        """Remember the run's facts for the cells."""
        self._run = run

    @hookimpl
    def toxbench_epoch_finished(self, cell: CellKey, epoch: EpochRecord) -> None:
        """Write an epoch; the first one starts a new file."""
        file = self._file(cell, restart=epoch.epoch == 1)
        file.write_numbers(epoch.epoch, epoch_numbers(epoch))

    @hookimpl
    def toxbench_cell_finished(self, result: CellRecord) -> None:
        """Write scores and settings."""
        file = self._file(result.key, restart=False)
        file.write_numbers(len(result.epochs), cell_numbers(result))
        file.finish(result.key.stem, cell_facts(result, self._run))
        del self._open_files[result.key]

    def close(self) -> None:
        """Close the files of cells that did not finish."""
        for file in self._open_files.values():
            file.close()

    def _file(self, cell: CellKey, restart: bool) -> EventFile:
        if restart and cell in self._open_files:
            self._open_files.pop(cell).close()
        if cell not in self._open_files:
            self._open_files[cell] = EventFile(self._folder / cell.stem)
        return self._open_files[cell]


@hookimpl
def toxbench_trackers() -> list[Tracker]:
    """Register TensorBoard, which is imported only when a run starts it."""
    return [
        Tracker(
            name="tensorboard",
            start=TensorBoard,
            needs="tensorboard",
            install='pip install "toxbench[tensorboard]"',
            view="tensorboard --logdir {folder}",
        )
    ]
