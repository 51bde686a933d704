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

_TEXTS_PER_BATCH = 32
_WORD_START = re.compile(r"(?<=[^\W\d_])(?=\d)|(?<=[a-z0-9])(?=[A-Z])|[\W_]+")


class ZeroShotSettings(BaselineSettings):
    """The model, the sentence that it judges for each label, and tokens of text and sentence."""

    model: str = ""
    hypothesis: str = Field("This comment is {}.", pattern=r"\{\}")
    max_length: int = Field(256, ge=32)


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
        PluginError: the model has no outputs of these names.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = str(context.weights)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.float32,
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    outputs = [_output(model.config.id2label, start) for start in ("contra", "entail")]
    settings = context.settings
    hypotheses = [settings.hypothesis.replace("{}", words_of(label)) for label in context.labels]

    def entailment(batch: Sequence[str], hypothesis: str) -> torch.Tensor:
        tokens = tokenizer(
            list(batch),
            [hypothesis] * len(batch),
            truncation="only_first",
            max_length=settings.max_length,
            padding=True,
            return_tensors="pt",
        )
        scores: torch.Tensor = model(**tokens).logits[:, outputs].softmax(-1)[:, 1]
        return scores

    @torch.inference_mode()
    def predict(texts: Sequence[str]) -> "npt.NDArray[np.float64]":
        batches = [
            texts[start : start + _TEXTS_PER_BATCH]
            for start in range(0, len(texts), _TEXTS_PER_BATCH)
        ]
        rows = [torch.stack([entailment(b, h) for h in hypotheses], dim=1) for b in batches]
        return torch.cat(rows).double().numpy()

    return predict


def _output(names: dict[int, str], start: str) -> int:
    """Return the number of the output whose name starts so."""
    for number, name in names.items():
        if name.lower().startswith(start):
            return int(number)
    raise PluginError(
        "zero-shot needs a model for natural language inference: its config.json names no output "
        f"{start}..., but {', '.join(names.values())}"
    )


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
