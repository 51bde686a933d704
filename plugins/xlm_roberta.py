"""XLM-RoBERTa (Conneau et al. 2020, arXiv:1911.02116), base: Spanish and 99 other languages."""

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
    """Register XLM-RoBERTa."""
    return [
        Backbone(
            name="xlm-roberta",
            checkpoint="FacebookAI/xlm-roberta-base",
            model_type="xlm-roberta",
            # The rate that XTREME fine-tunes XLM-R with (Hu et al. 2020, arXiv:2003.11080).
            defaults=TrainSettings(learning_rate=2e-5, head_learning_rate=2e-4, epochs=5),
            stand_in=StandIn(
                note="all-MiniLM-L6-v2 as XLM-RoBERTa; English only, not its other languages",
                config={**minilm_as_roberta_config, "model_type": "xlm-roberta"},
                convert=minilm_as_roberta,
                defaults=stand_in_settings,
                search_space=stand_in_space,
            ),
        )
    ]
