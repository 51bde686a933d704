"""Zero-shot classification: a model for natural language inference reads the names of labels."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from toxbench import (
    Baseline,
    BaselineContext,
    BaselineSettings,
    PluginError,
    Predict,
    hookimpl,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_WORD_START = re.compile(r"(?<=[^\W\d_])(?=\d)|(?<=[a-z0-9])(?=[A-Z])|[\W_]+")


class ZeroShotSettings(BaselineSettings):
    """The model, and the sentence that it judges for each label."""

    model: str = ""
    hypothesis: str = Field("This comment is {}.", pattern=r"\{\}")
    batch_size: int = Field(32, ge=1)


def words_of(label: str) -> str:
    """Return the name of a label as words: ``IsHateSpeech`` becomes ``hate speech``."""
    words = " ".join(_WORD_START.sub(" ", label).lower().split())
    return words.removeprefix("is ") or label


def zero_shot(
    texts: Sequence[str], targets: "npt.NDArray[np.uint8]", context: BaselineContext
) -> Predict:
    """Predict for each label how far a text entails the hypothesis with the label's name.

    The probability is the softmax of entailment and contradiction (Yin et al. 2019,
    arXiv:1909.00161). Train rows and targets are not used.

    Raises:
        PluginError: the model has no output called entailment.
    """
    from transformers import pipeline

    names = [words_of(label) for label in context.labels]
    classify = pipeline(
        "zero-shot-classification",
        str(context.weights),
        device="cpu",
        trust_remote_code=False,
        dtype="float32",
        model_kwargs={"use_safetensors": True},
    )
    if classify.entailment_id < 0:
        raise PluginError("config.json names no output entailment; choose a model of inference")

    def predict(texts: Sequence[str]) -> "npt.NDArray[np.float64]":
        import numpy as np

        results = classify(
            list(texts),
            list(dict.fromkeys(names)),
            hypothesis_template=context.settings.hypothesis,
            multi_label=True,
            batch_size=context.settings.batch_size,
        )
        scores = [dict(zip(r["labels"], r["scores"], strict=True)) for r in results]
        return np.array([[row[name] for name in names] for row in scores])

    return predict


@hookimpl
def toxbench_baselines() -> list[Baseline]:
    """Register zero-shot classification."""
    return [
        Baseline(
            name="zero-shot",
            fit=zero_shot,
            settings=ZeroShotSettings,
            weights_setting="model",
            on_request=True,
        )
    ]
