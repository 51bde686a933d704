"""Pareto fronts: of candidates in a report, and of the trials of a search."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from toxbench.records import TrialRecord

Item = TypeVar("Item")


def pareto_front(items: Sequence[Item], losses: Callable[[Item], Sequence[float]]) -> list[Item]:
    """Return the items that no other item dominates, in their order.

    An item dominates another one if none of its losses is higher and one is lower (Deb 2001,
    Multi-Objective Optimization using Evolutionary Algorithms, section 2.4).
    """
    points = [tuple(losses(item)) for item in items]
    pairs = zip(items, points, strict=True)
    return [item for item, point in pairs if not _is_dominated(point, points)]


def trial_front(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the complete trials on the Pareto front of the objectives of their search."""
    complete = [record for record in records if record.value is not None]
    return pareto_front(complete, lambda record: (-(record.value or 0.0), *record.costs.values()))


def _is_dominated(point: tuple[float, ...], points: Sequence[tuple[float, ...]]) -> bool:
    return any(
        other != point and all(a <= b for a, b in zip(other, point, strict=True))
        for other in points
    )
