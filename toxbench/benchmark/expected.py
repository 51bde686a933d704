"""How long a run will take, roughly: floating-point operations over what this device manages."""

from collections.abc import Iterable
from pathlib import Path

import torch

from toxbench.benchmark.candidate import BackboneCandidate
from toxbench.benchmark.plan import Plan
from toxbench.records import CellKey
from toxbench.training.device import Device
from toxbench.training.loop import looks
from toxbench.training.peak import matrix_peak
from toxbench.training.remembered import Remembered
from toxbench.training.weights import parameter_counts

_SECONDS_TO_BUILD = 3.0
_CHARACTERS_A_TOKEN = 4.5
_SIDE_BY_SIDE = 0.8  # of the time of the same cells one after the other (results/README.md)
_SHARE_OF_PEAK = 0.4  # what a training step of a small batch reaches of a large matrix product


def expected_seconds(plan: Plan, remembered: Remembered, workers: int) -> float | None:
    """Estimate the seconds of all missing cells; None where a size is not known.

    Training costs 6 operations a parameter and token, scoring 2, embedding tables left out
    (Kaplan et al. 2020, arXiv:2001.08361, section 2.1). What share of a large matrix product's
    speed is reached was measured by ``toxbench speed``, or is guessed. What processes lose that
    compute a cell together is left out.
    """
    rates: dict[Device, float] = {}
    total = 0.0
    for candidate, key in plan.missing:
        if not isinstance(candidate, BackboneCandidate):
            total += _SECONDS_TO_BUILD
            continue
        if candidate.weights.folder is None:
            return None
        device = plan.devices[candidate.title]
        if device not in rates:
            rates[device] = matrix_peak(device)
        share = remembered.share_of_peak(
            device,
            torch.get_num_threads(),
            body_parameters(candidate.weights.folder),
            candidate.settings.batch_size,
        )
        speed = rates[device] * (share or _SHARE_OF_PEAK)
        total += _SECONDS_TO_BUILD + operations(plan, [(candidate, key)]) / speed / plan.processes
    return total * (_SIDE_BY_SIDE if workers > 1 else 1.0)


def operations(plan: Plan, cells: Iterable[tuple[BackboneCandidate, CellKey]]) -> float:
    """Count the floating-point operations of some cells; weights that are not here count 0."""
    return sum(
        body_parameters(candidate.weights.folder) * _for_a_parameter(plan, candidate, key.fold)
        for candidate, key in cells
        if candidate.weights.folder is not None
    )


def _for_a_parameter(plan: Plan, candidate: BackboneCandidate, fold: int) -> float:
    """Count the operations of one cell for each parameter."""
    settings = candidate.settings
    split = plan.protocol.folds[fold]
    cut = settings.max_length
    lengths = [
        cut if settings.padding == "max_length" else min(cut, len(text) / _CHARACTERS_A_TOKEN + 2)
        for text in plan.protocol.comments.texts
    ]
    a_row = sum(lengths) / len(lengths)
    trained = len(split.train) * settings.epochs
    scored = len(split.validation) * looks(settings, len(split.train)) + len(lengths)
    return a_row * (6 * trained + 2 * scored)


def body_parameters(folder: Path) -> int:
    """Count a checkpoint's parameters without embedding tables; raises `StorageError`."""
    counts = parameter_counts(folder)
    return sum(count for name, count in counts.items() if "embeddings" not in name)
