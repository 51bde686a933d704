"""How many comments a backbone does not see to their end."""

from collections.abc import Iterator
from dataclasses import dataclass

from toxbench.benchmark.plan import backbone_candidate
from toxbench.benchmark.trainer_factory import TrainerFactory
from toxbench.benchmark.validate import ResolvedRun
from toxbench.data.table import TextDataset
from toxbench.errors import SettingsError, TryAgainError
from toxbench.training.device import choose_device
from toxbench.training.weights import WeightsFinder


@dataclass(frozen=True)
class Truncation:
    """What one backbone's tokenizer cuts.

    Attributes:
        backbone: its name.
        share: of all comments, how many are longer than ``max_length``.
        max_length: tokens.
        weights: which weights the tokenizer comes with.
    """

    backbone: str
    share: float
    max_length: int
    weights: str


@dataclass(frozen=True)
class Unknown:
    """A backbone whose tokenizer is not on this machine, and why."""

    backbone: str
    reason: str


def truncations(run: ResolvedRun, comments: TextDataset) -> Iterator[Truncation | Unknown]:
    """Yield the truncation by each backbone of a run; nothing is downloaded.

    Raises:
        StorageError: the weights of a backbone are damaged.
    """
    finder = WeightsFinder(run.weights, download=False)
    for backbone in run.backbones:
        name = backbone.item.name
        try:
            candidate = backbone_candidate(backbone, run.settings, finder)
        except (SettingsError, TryAgainError) as error:
            yield Unknown(name, str(error))
            continue
        if candidate.weights.folder is None:
            yield Unknown(
                name, "its weights are not on this machine yet; toxbench run fetches them"
            )
            continue
        device = choose_device("cpu", "fp32")  # tokenising needs none
        bench = TrainerFactory(candidate.backbone, candidate.weights, comments, device)
        length = candidate.settings.max_length
        share = float(bench.tokens(length).truncated.mean())
        yield Truncation(name, share, length, candidate.weights.record.label)
