"""The share of comments that each backbone truncates."""

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
    """How much one backbone's tokenizer truncates.

    Attributes:
        backbone: its name.
        share: of all comments, those of which tokens are left out; in [0, 1].
        max_length: in tokens.
        weights: label of the weights that the tokenizer belongs to.
    """

    backbone: str
    share: float
    max_length: int
    weights: str


@dataclass(frozen=True)
class UnknownTruncation:
    """A backbone whose tokenizer is not on this machine, and the reason."""

    backbone: str
    reason: str


def truncations(
    run: ResolvedRun, comments: TextDataset
) -> Iterator[Truncation | UnknownTruncation]:
    """Yield the truncation by each backbone of a run; download nothing.

    Raises:
        StorageError: the weights of a backbone are damaged.
    """
    finder = WeightsFinder(run.weights, download=False)
    for backbone in run.backbones:
        name = backbone.item.name
        try:
            candidate = backbone_candidate(backbone, run.settings, finder, len(comments.labels))
        except (SettingsError, TryAgainError) as error:
            yield UnknownTruncation(name, str(error))
            continue
        if candidate.weights.folder is None:
            yield UnknownTruncation(
                name, "its weights are not on this machine yet; toxbench run downloads them"
            )
            continue
        device = choose_device("cpu", "fp32")  # required, but not used by tokenizers
        factory = TrainerFactory(
            candidate.backbone, candidate.weights, comments, device, candidate.distribution
        )
        share = factory.tokens(candidate.settings).truncated_share
        length = candidate.settings.max_length
        yield Truncation(name, share, length, candidate.weights.record.label)
