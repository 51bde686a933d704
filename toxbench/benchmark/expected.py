"""How long a run will take, roughly: floating-point operations over what this device manages."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from toxbench.benchmark.candidate import BackboneCandidate
from toxbench.benchmark.plan import Plan
from toxbench.records import CellKey
from toxbench.settings import TrainSettings
from toxbench.training.device import Device
from toxbench.training.loop import looks
from toxbench.training.peak import matrix_peak
from toxbench.training.remembered import Remembered
from toxbench.training.weights import parameter_counts

_SECONDS_TO_BUILD = 3.0
# What a row costs beside the model (results/README.md): audit and tokens once, scores a cell.
_SECONDS_TO_PREPARE_A_ROW = 2.6e-4
_SECONDS_TO_SCORE_A_ROW = 2.4e-5
_SECONDS_OF_A_BASELINE_ROW = 1e-4
_CHARACTERS_A_TOKEN = 4.5
_TEXTS_LOOKED_AT = 10_000
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
    rows = len(plan.protocol.comments)
    total = 0.0
    for candidate, key in plan.missing:
        total += _SECONDS_TO_BUILD + _SECONDS_TO_SCORE_A_ROW * rows
        if not isinstance(candidate, BackboneCandidate):
            total += _SECONDS_OF_A_BASELINE_ROW * rows
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
        total += operations(plan, [(candidate, key)]) / speed / plan.processes
    once = _SECONDS_TO_PREPARE_A_ROW * rows
    return once + total * (_SIDE_BY_SIDE if workers > 1 else 1.0)


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
    split, texts = plan.protocol.folds[fold], plan.protocol.comments.texts
    trained = len(split.train) * settings.epochs
    scored = len(split.validation) * looks(settings, len(split.train)) + len(texts)
    return _tokens_of_a_row(texts, settings) * (6 * trained + 2 * scored)


def _tokens_of_a_row(texts: Sequence[str], settings: TrainSettings) -> float:
    """Guess how many tokens a row has on average; of many rows, some are looked at."""
    cut = settings.max_length
    if settings.padding == "max_length":
        return cut
    some = texts[:: -(-len(texts) // _TEXTS_LOOKED_AT)]
    return sum(min(cut, len(text) / _CHARACTERS_A_TOKEN + 2) for text in some) / len(some)


def body_parameters(folder: Path) -> int:
    """Count a checkpoint's parameters without embedding tables; raises `StorageError`."""
    counts = parameter_counts(folder)
    return sum(count for name, count in counts.items() if "embeddings" not in name)
