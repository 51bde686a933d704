"""all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957, and sentence-transformers): small, fast."""

from toxbench import (
    Backbone,
    StandIn,
    TrainSettings,
    hookimpl,
    minilm_config,
    stand_in_settings,
    stand_in_space,
)


@hookimpl
def toxbench_backbones() -> list[Backbone]:
    """Register MiniLM."""
    return [
        Backbone(
            name="minilm",
            checkpoint="sentence-transformers/all-MiniLM-L6-v2",
            model_type="bert",
            # As for the stand-in of bert, which has the same weights.
            defaults=TrainSettings(**stand_in_settings),
            search_space=stand_in_space,
            # Training on the mean of its tokens left the pooler untrained.
            head=("classifier", "bert.pooler"),
            # The same model: model.safetensors of the package and of the Hub have one sha256.
            stand_in=StandIn(
                note="all-MiniLM-L6-v2 itself, from a package",
                config={**minilm_config, "model_type": "bert"},
            ),
        )
    ]
