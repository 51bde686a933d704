"""all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957, and sentence-transformers): small, fast."""

from pathlib import Path
from typing import TYPE_CHECKING

from toxbench import (
    Backbone,
    StandIn,
    TrainSettings,
    first_token_classifier,
    hookimpl,
    minilm_config,
    stand_in_space,
)

if TYPE_CHECKING:
    from torch import nn


class MiniLM(Backbone):
    """BERT's architecture without the pooler, which training on mean tokens left untrained."""

    def build(self, weights: Path, label_count: int) -> "nn.Module":
        """Return the encoder with dropout and a linear layer on its first token."""
        return first_token_classifier(weights, label_count)


@hookimpl
def toxbench_backbones() -> list[Backbone]:
    """Register MiniLM."""
    return [
        MiniLM(
            name="minilm",
            checkpoint="sentence-transformers/all-MiniLM-L6-v2",
            # Chosen on the YouTube table (results/README.md), as for the stand-in of bert.
            defaults=TrainSettings(learning_rate=2e-4, head_learning_rate=2e-3, epochs=12),
            search_space=stand_in_space,
            # The same model: model.safetensors of the package and of the Hub have one sha256.
            stand_in=StandIn(
                note="all-MiniLM-L6-v2 itself, from a package",
                config={**minilm_config, "model_type": "bert"},
            ),
        )
    ]
