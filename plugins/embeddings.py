"""Baselines that embed texts, with a logistic regression per label on the embeddings."""

import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import Field

from toxbench import (
    Baseline,
    BaselineContext,
    BaselineSettings,
    PluginError,
    Predict,
    fit_logistic_regression,
    hookimpl,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Embed: TypeAlias = Callable[[Sequence[str]], npt.NDArray[np.float32]]


class StaticSettings(BaselineSettings):
    """The encoder, and the logistic regression: ``C`` is scikit-learn's."""

    model: str = ""
    C: float = Field(10.0, gt=0)


class EmbeddingSettings(StaticSettings):
    """The encoder reads ``max_length`` tokens of a text at most."""

    model: str = "minilm"
    max_length: int = Field(128, ge=3)


class SetFitSettings(EmbeddingSettings):
    """``steps`` batches of pairs fine-tune the encoder."""

    steps: int = Field(50, ge=1)
    batch_size: int = Field(16, ge=2)
    learning_rate: float = Field(2e-5, gt=0)


def embeddings(
    texts: Sequence[str], targets: "npt.NDArray[np.uint8]", context: BaselineContext
) -> Predict:
    """Embed texts with a frozen encoder of sentence-transformers.

    A checkpoint that does not name its pooling is pooled by the mean of its tokens.
    """
    return _fit_head(_embed_with(_load_encoder(context)), texts, targets, context)


def static_embeddings(
    texts: Sequence[str], targets: "npt.NDArray[np.uint8]", context: BaselineContext
) -> Predict:
    """Embed texts as means of the static token vectors of a model2vec model."""
    from model2vec import StaticModel

    model = StaticModel.from_pretrained(str(context.weights))

    def embed(texts: Sequence[str]) -> "npt.NDArray[np.float32]":
        vectors: npt.NDArray[np.float32] = model.encode(list(texts), use_multiprocessing=False)
        return vectors

    return _fit_head(embed, texts, targets, context)


def setfit(
    texts: Sequence[str], targets: "npt.NDArray[np.uint8]", context: BaselineContext
) -> Predict:
    """Fine-tune the encoder on pairs of texts (Tunstall et al. 2022, arXiv:2209.11055), then embed.

    The embeddings of two texts become similar if the texts share a label, and dissimilar if not.
    """
    encoder, shared = _load_encoder(context), targets.astype("int32") @ targets.T > 0
    if shared.any() and not shared.all():  # else there are only pairs of one kind
        _train_on_pairs(encoder, texts, targets, context)
    return _fit_head(_embed_with(encoder), texts, targets, context)


def _load_encoder(context: BaselineContext) -> Any:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(
        str(context.weights),
        device="cpu",
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"use_safetensors": True},
    )
    encoder.max_seq_length = min(encoder.max_seq_length or math.inf, context.settings.max_length)
    return encoder


def _embed_with(encoder: Any) -> "Embed":
    return lambda texts: encoder.encode(
        list(texts), show_progress_bar=False, normalize_embeddings=True
    )


def _fit_head(
    embed: "Embed",
    texts: Sequence[str],
    targets: "npt.NDArray[np.uint8]",
    context: BaselineContext,
) -> Predict:
    predict = fit_logistic_regression(embed(texts), targets, context.settings.C, context.labelled)
    return lambda texts: predict(embed(texts))


def _train_on_pairs(
    encoder: Any, texts: Sequence[str], targets: "npt.NDArray[np.uint8]", context: BaselineContext
) -> None:
    from setfit import SetFitModel, Trainer, TrainingArguments, logging
    from transformers import PrinterCallback

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise PluginError("setfit waits for torchrun's other processes; start without torchrun")
    logging.set_verbosity_error()
    with TemporaryDirectory() as folder, _restored_random_state():
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=context.settings.steps,
            batch_size=context.settings.batch_size,
            body_learning_rate=context.settings.learning_rate,
            seed=context.seed,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            show_progress_bar=False,
        )
        model = SetFitModel(encoder, multi_target_strategy="one-vs-rest")
        trainer = Trainer(model, arguments)
        trainer.remove_callback(PrinterCallback)  # stdout is for results only
        trainer.st_trainer.args.dataloader_pin_memory = False  # it warns without a GPU
        trainer.train_embeddings(list(texts), targets.tolist(), args=arguments)


@contextmanager
def _restored_random_state() -> Iterator[None]:
    """Restore the generators that SetFit seeds, except torch's, which toxbench restores."""
    import numpy as np

    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@hookimpl
def toxbench_baselines() -> list[Baseline]:
    """Register frozen embeddings, fine-tuned ones and static ones."""
    shared: dict[str, Any] = {"weights_setting": "model", "on_request": True}
    return [
        Baseline(
            name="embeddings", fit=embeddings, settings=EmbeddingSettings, **shared,
            needs="sentence_transformers", install='pip install "toxbench[embeddings]"',
        ),
        Baseline(
            name="model2vec", fit=static_embeddings, settings=StaticSettings, **shared,
            needs="model2vec", install='pip install "toxbench[model2vec]"',
        ),
        Baseline(
            name="setfit", fit=setfit, settings=SetFitSettings, **shared, stochastic=True,
            most_rows=2_000,  # SetFit lists all pairs of rows
            needs="setfit", install='pip install "toxbench[setfit]"',
        ),
    ]  # fmt: skip
