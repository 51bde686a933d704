"""Names of candidates that differ only in settings."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from toxbench.records import CellRecord
from toxbench.util.text import format_setting


def distinguishing_settings(candidates: Sequence[CellRecord]) -> list[str]:
    """Return the settings that distinguish each candidate, given by a cell, from its namesakes.

    Names must be unique, because comparisons and intervals are looked up by name. Rows that
    settings do not distinguish (but weights may, for example) get their digest.
    """
    settings = [cell.all_settings for cell in candidates]
    names = [
        (cell.key.candidate, cell.adaptation, cell.kind, cell.tuning is None) for cell in candidates
    ]
    values: dict[tuple[object, ...], set[str]] = defaultdict(set)  # of each name and setting
    for name, of_cell in zip(names, settings, strict=True):
        for setting, value in of_cell.items():
            values[*name, setting].add(repr(value))
    texts: list[str] = []
    for name, of_cell in zip(names, settings, strict=True):
        adaptation = [name[1]] if name[1] != "full" else []
        different = [setting for setting in of_cell if len(values[*name, setting]) > 1]
        changes = [f"{setting}={format_setting(of_cell[setting])}" for setting in different]
        texts.append(" ".join([*adaptation, *changes]))
    rows = [
        (cell.key.candidate, cell.tuning is None, text)
        for cell, text in zip(candidates, texts, strict=True)
    ]
    counts = Counter(rows)
    return [
        f"{row[-1]} #{cell.key.digest[:6]}".strip() if counts[row] > 1 else row[-1]
        for cell, row in zip(candidates, rows, strict=True)
    ]
