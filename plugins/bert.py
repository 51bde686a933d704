"""BERT (Devlin et al. 2019, arXiv:1810.04805), base and uncased."""

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
    """Register BERT."""
    return [
        Backbone(
            name="bert",
            checkpoint="google-bert/bert-base-uncased",
            model_type="bert",
            defaults=TrainSettings(learning_rate=3e-5, head_learning_rate=3e-4, epochs=4),
            stand_in=StandIn(
                note="all-MiniLM-L6-v2",
                config={**minilm_config, "model_type": "bert"},
                # MiniLM was trained on the mean of its tokens, so its pooler is untrained.
                head=("classifier", "bert.pooler"),
                defaults={**stand_in_settings, "learning_rate": 1e-4},
                search_space=stand_in_space,
            ),
        )
    ]
