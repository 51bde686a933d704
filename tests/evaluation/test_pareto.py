"""Pareto fronts of points."""

import random
from itertools import product

import optuna
import pytest

from toxbench.evaluation.curves import pareto_front


@pytest.mark.parametrize("objectives", [2, 3])
def test_front_equals_optunas(objectives: int) -> None:
    """Small integers, so that values and whole points are equal."""
    rng = random.Random(objectives)
    grid = [point for point in product(range(5), repeat=objectives) if sum(point) > 4]
    points = rng.choices(grid, k=60)
    study = optuna.create_study(directions=["minimize"] * objectives)
    study.add_trials([optuna.create_trial(values=point) for point in points])
    best = sorted(trial.number for trial in study.best_trials)
    assert pareto_front(range(60), lambda number: points[number]) == best
    assert 1 < len({points[number] for number in best}) < len(best) < 60
