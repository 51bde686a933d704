"""RoBERTa (Liu et al. 2019, arXiv:1907.11692), base."""

from toxbench import (
    Backbone,
    StandIn,
    TrainSettings,
    hookimpl,
    minilm_as_roberta,
    minilm_as_roberta_config,
    stand_in_settings,
    stand_in_space,
)


@hookimpl
def toxbench_backbones() -> list[Backbone]:
    """Register RoBERTa."""
    return [
        Backbone(
            name="roberta",
            checkpoint="FacebookAI/roberta-base",
            model_type="roberta",
            defaults=TrainSettings(learning_rate=2e-5, head_learning_rate=2e-4, epochs=5),
            stand_in=StandIn(
                note="all-MiniLM-L6-v2 as RoBERTa; does not measure RoBERTa's pretraining",
                config={**minilm_as_roberta_config, "model_type": "roberta"},
                convert=minilm_as_roberta,
                defaults=stand_in_settings,
                search_space=stand_in_space,
            ),
        )
    ]
