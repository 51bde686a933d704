"""ModernBERT (Warner et al. 2024, arXiv:2412.13663), base."""

from toxbench import Backbone, Range, TrainSettings, fine_tuning_space, hookimpl


@hookimpl
def toxbench_backbones() -> list[Backbone]:
    """Register ModernBERT. MiniLM cannot be its stand-in, because the layers differ."""
    return [
        Backbone(
            name="modernbert",
            checkpoint="answerdotai/ModernBERT-base",
            model_type="modernbert",
            # As tuned for GLUE in the paper: 5e-5 or 8e-5, almost no weight decay.
            defaults=TrainSettings(
                learning_rate=5e-5, head_learning_rate=5e-4, weight_decay=5e-6, epochs=5
            ),
            search_space={
                **fine_tuning_space,
                "weight_decay": Range(1e-6, 1e-2, log=True),
            },
            head=("classifier",),  # its module called head is pretrained
        )
    ]
