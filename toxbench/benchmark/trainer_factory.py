"""Trainers of one backbone, which share its tokenizer, tokens and pretrained weights."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from toxbench.benchmark.plan import backbone_candidate
from toxbench.benchmark.validate import ResolvedRun
from toxbench.data.table import TextDataset
from toxbench.data.tokenization import Tokens, tokenise, tokenise_uncached, tokenizer_state
from toxbench.errors import PluginError, SettingsError, TryAgainError
from toxbench.plugin.contracts import Backbone
from toxbench.plugin.loading import quiet_transformers
from toxbench.settings import LongText, TrainSettings
from toxbench.training.compatibility import (
    LoadedModule,
    check_vocabulary,
    describe,
    examine,
    head_of,
)
from toxbench.training.device import Device, choose_device, seeded
from toxbench.training.process_group import SINGLE_PROCESS, ProcessGroup
from toxbench.training.state import Checkpoints
from toxbench.training.trainer import Trainer
from toxbench.training.weights import Weights, WeightsFinder, tokenizer_files
from toxbench.util.atomic import cache_folder
from toxbench.util.content import sha256_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Result = TypeVar("Result")


@dataclass(eq=False)
class TrainerFactory:
    """Creates trainers of one backbone on one table, and prepares shared data once.

    Attributes:
        backbone: builds the module and the tokenizer.
        weights: on the disk.
        comments: all rows that a trainer may read.
        device: on which to train.
        distribution: of the backbone's plugin, as `BackboneCandidate.distribution`: the class of a
            tokenizer may be in it.
        keep_module: keep an untrained copy of the module of the last seed, to build it once for
            many trainings with one seed. The results do not depend on it.
        group: the processes that create the same trainers.
    """

    backbone: Backbone
    weights: Weights
    comments: TextDataset
    device: Device
    distribution: str
    keep_module: bool = False
    group: ProcessGroup = SINGLE_PROCESS
    _cached_module: tuple[int, LoadedModule, torch.Tensor] | None = field(default=None, init=False)
    _tokens: dict[tuple[int, LongText], Tokens] = field(default_factory=dict, init=False)

    def tokens(self, settings: TrainSettings) -> Tokens:
        """Return the tokens of the table for some settings, cached on the disk if possible."""
        key = settings.max_length, settings.long_text
        if key not in self._tokens:
            self._tokens[key] = self._tokenise(*key)
        return self._tokens[key]

    def with_trainer(
        self,
        settings: TrainSettings,
        seed: int,
        work: Callable[[Trainer], Result],
        checkpoints: Callable[[int], Checkpoints] = lambda micro_batch: Checkpoints(),
    ) -> tuple[Result, int]:
        """Call a function with a trainer of a new module.

        If memory runs out, call it again with another trainer, which computes half as many comments
        in a forward pass and twice as many passes in a step.

        Args:
            settings: of the training.
            seed: of the module's head, dropout and the order of rows.
            work: the function.
            checkpoints: returns the checkpoints of a training, given its number of comments in a
                forward pass.

        Returns:
            the result of ``work``, and the number of comments in a forward pass.

        Raises:
            PluginError: as `trainer`.
            OutOfMemoryError: memory is too small for a single comment.
            CompanionError: another process of the group failed.
        """

        def attempt(micro_batch: int) -> Result:
            with self.trainer(settings, seed, micro_batch, checkpoints(micro_batch)) as trainer:
                return work(trainer)

        return self.group.retried(attempt, settings.batch_size)

    @contextmanager
    def trainer(
        self,
        settings: TrainSettings,
        seed: int,
        micro_batch: int | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> Iterator[Trainer]:
        """Yield a trainer of a new module; torch is seeded until the context ends.

        Args:
            settings: of the training.
            seed: of the module's head, dropout and the order of rows.
            micro_batch: number of comments in a forward pass; None for all comments of a batch that
                this process computes.
            checkpoints: of the training; None to write none.

        Raises:
            PluginError: the backbone breaks its contract, or does not support the settings.
        """
        tokens = self.group.run_rank0_first(lambda: self.tokens(settings))
        with seeded(seed, self.device):
            loaded = self.group.run_on_all(lambda: self._module(seed))
            self.group.run_on_all(lambda: loaded.prepare_head(settings, self._source))
            yield Trainer(
                loaded.module,
                loaded.head,
                tokens,
                self.comments.codes,
                settings,
                self.device,
                micro_batch=micro_batch,
                checkpoints=checkpoints,
                group=self.group,
            )

    @property
    def _source(self) -> str:
        return describe(self.backbone, self.weights)

    @property
    def _folder(self) -> Path:
        folder = self.weights.folder
        if folder is None:
            name = self.backbone.name
            raise PluginError(f"the weights of {name} were not downloaded; plan with download=True")
        return folder

    @cached_property
    def _tokenizer(self) -> "PreTrainedTokenizerBase":
        with quiet_transformers():
            tokenizer = self.backbone.tokenizer(self._folder)
        if tokenizer.pad_token_id is None:
            raise PluginError(
                "the tokenizer has no padding token; set tokenizer.pad_token in Backbone.tokenizer"
            )
        return tokenizer

    @cached_property
    def _tokenizer_identity(self) -> str | None:
        """A text for all that the tokens depend on; None if that is unknown."""
        state = tokenizer_state(self._tokenizer, self._folder)
        files = map(sha256_file, tokenizer_files(self._folder))
        return state and ":".join([self.distribution, state, *files])

    def _tokenise(self, max_length: int, long_text: LongText) -> Tokens:
        tokenizer, identity = self._tokenizer, self._tokenizer_identity
        if identity is None:
            return tokenise_uncached(tokenizer, self.comments.texts, max_length, long_text)
        cache = cache_folder() / "tokens"
        return tokenise(tokenizer, identity, self.comments.texts, max_length, cache, long_text)

    def _module(self, seed: int) -> LoadedModule:
        """Return the module that is built after seeding torch with ``seed``."""
        if self._cached_module is not None and self._cached_module[0] == seed:
            _, loaded, rng_state = self._cached_module
            torch.set_rng_state(rng_state)  # as after building it
            return copy.deepcopy(loaded)
        with quiet_transformers() as reports:
            module = self.backbone.build(self._folder, len(self.comments.labels))
        for report in reports:
            report.check_body(self._source)
        check_vocabulary(self._tokenizer, module, self._source)
        loaded = examine(module, reports, head_of(self.backbone, self.weights))
        if self.keep_module:
            self._cached_module = (seed, copy.deepcopy(loaded), torch.get_rng_state())
        return loaded


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
