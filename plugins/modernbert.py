"""ModernBERT (Warner et al. 2024, arXiv:2412.13663), base."""

from toxbench import Backbone, Range, TrainSettings, fine_tuning_space, hookimpl


@hookimpl
def toxbench_backbones() -> list[Backbone]:
    """Register ModernBERT. Its layers are its own, so MiniLM cannot stand in for it."""
    return [
        Backbone(
            name="modernbert",
            checkpoint="answerdotai/ModernBERT-base",
            # What the paper's GLUE tasks were tuned to: 5e-5 or 8e-5, next to no weight decay.
            defaults=TrainSettings(
                learning_rate=5e-5, head_learning_rate=5e-4, weight_decay=5e-6, epochs=5
            ),
            search_space={
                **fine_tuning_space,
                "weight_decay": Range(1e-6, 1e-2, log=True),
            },
            head=("classifier",),  # what it calls head comes out of the pretraining
        )
    ]
