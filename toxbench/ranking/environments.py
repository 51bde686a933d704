"""Differences between the machines and the versions that computed the cells of one candidate."""

from collections import defaultdict
from collections.abc import Iterable

from toxbench.records import CellRecord


def mixed_environments(cells: Iterable[CellRecord]) -> str:
    """Return what differs between the cells and changes bytes, such as ``threads (1, 2)``.

    Empty if nothing differs. Cells are not trained again for it.
    """
    values: dict[str, set[object]] = defaultdict(set)
    for cell in cells:
        environment = cell.environment
        values["device"].add(environment.device_name)
        values["precision"].add(environment.precision)
        values["threads"].add(environment.threads)
        for package, version in environment.versions.items():
            values[package].add(version)
    return ", ".join(
        f"{name} ({', '.join(sorted(map(str, different)))})"
        for name, different in values.items()
        if len(different) > 1
    )
