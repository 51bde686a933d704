"""Comparison of the files and processes that two runs leave behind."""

import csv
import json
from pathlib import Path
from typing import Any

from toxbench.store.cells import CellStore

# Parts of column names whose values differ from run to run.
MEASURED = ("seconds", "comments_per_second", "comments/s", "memory", "commit")


class Results:
    """The results folder of a run, without times and other measured values."""

    def __init__(self, results: Path) -> None:
        (folder,) = results.iterdir()
        self.store = CellStore(folder)
        self.folder = folder

    @property
    def files(self) -> set[str]:
        return {str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file()}

    @property
    def cells(self) -> dict[str, object]:
        cells: dict[str, object] = {}
        for record, tensors in self.store.cells():
            content = record.model_dump(mode="json", exclude={"cost", "environment"})
            content["epochs"] = [epoch | {"seconds": 0} for epoch in content["epochs"]]
            cells[record.key.stem] = content, {k: v.tobytes() for k, v in tensors.items()}
        return cells

    @property
    def tables(self) -> list[object]:
        """The leaderboard as JSON, CSV and Markdown, without measured values."""
        board = json.loads((self.folder / "leaderboard.json").read_text(encoding="utf-8"))
        board["rows"] = [without_measured_values(row) for row in board["rows"]]
        with (self.folder / "leaderboard.csv").open(encoding="utf-8") as file:
            records = [without_measured_values(row) for row in csv.DictReader(file)]
        markdown = (self.folder / "leaderboard.md").read_text(encoding="utf-8")
        return [board, records, without_measured_columns(markdown)]

    @property
    def protocol_files(self) -> list[bytes]:
        return [(self.folder / n).read_bytes() for n in ("protocol.json", "rows.safetensors")]


def without_measured_values(row: dict[str, Any]) -> dict[str, Any]:
    return {k: "" if any(word in k for word in MEASURED) else v for k, v in row.items()}


def without_measured_columns(text: str) -> list[str]:
    """Remove the measured columns of each Markdown table, and the padding of its cells."""
    lines: list[str] = []
    columns: list[int] | None = None  # of the table that this line is in
    for line in text.splitlines():
        if not line.startswith("|"):
            lines.append(line)
            columns = None
            continue
        cells = [cell.strip(" -") for cell in line.strip("|").split("|")]
        if columns is None:  # the header
            columns = [n for n, c in enumerate(cells) if not any(w in c for w in MEASURED)]
        lines.append(" | ".join(cells[n] for n in columns))
    return lines


def assert_same(results: Results, undisturbed: Results) -> None:
    assert results.files == undisturbed.files  # no temporary file, and no file moved aside
    assert results.cells == undisturbed.cells
    assert results.tables == undisturbed.tables
    assert results.protocol_files == undisturbed.protocol_files


def processes_of(command_folder: Path, mark: str) -> list[str]:
    """Return the command lines of processes, except zombies, that a command has left behind.

    They work in its folder, or have its mark in their environment.
    """
    commands = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            in_folder = (folder / "cwd").readlink() == command_folder
            if in_folder or mark.encode("ascii") in (folder / "environ").read_bytes():
                commands.append((folder / "cmdline").read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue  # the process has ended
    return commands
