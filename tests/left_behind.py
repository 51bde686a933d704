"""What a run leaves behind, to be compared with what another one did: results and processes."""

import csv
import json
from pathlib import Path
from typing import Any

from toxbench.store.cells import CellStore

MEASURED = ("seconds", "comments_per_second", "comments/s", "memory", "commit")


class Results:
    """What a run leaves behind, without what is measured by the clock."""

    def __init__(self, results: Path) -> None:
        (folder,) = results.iterdir()
        self.store = CellStore(folder)
        self.folder = folder

    @property
    def files(self) -> set[str]:
        return {str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file()}

    @property
    def cells(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for record, tensors in self.store.cells():
            content = record.model_dump(mode="json", exclude={"cost", "environment"})
            content["epochs"] = [epoch | {"seconds": 0} for epoch in content["epochs"]]
            found[record.key.stem] = content, {k: v.tobytes() for k, v in tensors.items()}
        return found

    @property
    def tables(self) -> list[object]:
        """The leaderboard as JSON, CSV and Markdown, what is measured blanked."""
        rows = json.loads((self.folder / "leaderboard.json").read_text(encoding="utf-8"))
        rows["rows"] = [blanked(row) for row in rows["rows"]]
        with (self.folder / "leaderboard.csv").open(encoding="utf-8") as file:
            records = [blanked(row) for row in csv.DictReader(file)]
        return [rows, records, without_columns((self.folder / "leaderboard.md").read_text())]

    @property
    def others(self) -> list[bytes]:
        return [(self.folder / n).read_bytes() for n in ("protocol.json", "rows.safetensors")]


def blanked(row: dict[str, Any]) -> dict[str, Any]:
    return {k: "" if any(word in k for word in MEASURED) else v for k, v in row.items()}


def without_columns(text: str) -> list[str]:
    """Blank the measured columns of the first Markdown table, whatever their widths."""
    lines, kept = [], []
    for line in text.splitlines():
        cells = [cell.strip(" -") for cell in line.strip("|").split("|")]
        if "parameters" in cells:
            kept = [n for n, c in enumerate(cells) if not any(w in c for w in MEASURED)]
        is_row = line.startswith("|") and kept and len(cells) > max(kept)
        lines.append(" | ".join(cells[n] for n in kept) if is_row else line)
    return lines


def assert_same(found: Results, undisturbed: Results) -> None:
    assert found.files == undisturbed.files  # so no temporary file, and nothing moved aside
    assert found.cells == undisturbed.cells
    assert found.tables == undisturbed.tables
    assert found.others == undisturbed.others


def processes_with(mark: str) -> list[str]:
    """Return the processes that were started with a mark in their environment, zombies apart."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode("ascii") in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue  # it ended meanwhile
    return found
