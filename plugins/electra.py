"""ELECTRA (Clark et al. 2020, arXiv:2003.10555), the base discriminator."""

from toxbench import (
    Backbone,
    Range,
    StandIn,
    Tensors,
    TrainSettings,
    fine_tuning_space,
    hookimpl,
    minilm_config,
    stand_in_settings,
    stand_in_space,
)


def encoder_only(tensors: Tensors) -> Tensors:
    """Rename MiniLM's encoder to ELECTRA's, which has the same architecture without a pooler."""
    return {
        f"electra.{name}": tensor
        for name, tensor in tensors.items()
        if not name.startswith("pooler.") and not name.endswith("position_ids")
    }


@hookimpl
def toxbench_backbones() -> list[Backbone]:
    """Register ELECTRA."""
    return [
        Backbone(
            name="electra",
            checkpoint="google/electra-base-discriminator",
            model_type="electra",
            revision="refs/pr/4",  # the Hub's conversion to safetensors; main holds only pickles
            # Appendix B of the paper: table 7, and 10 epochs for its small tasks.
            defaults=TrainSettings(
                learning_rate=1e-4,
                head_learning_rate=1e-3,
                layer_decay=0.8,
                weight_decay=0.0,
                batch_size=32,
                epochs=10,
            ),
            search_space={
                **fine_tuning_space,
                "learning_rate": Range(3e-5, 3e-4, log=True),
                "epochs": Range(3, 12),
            },
            stand_in=StandIn(
                note="all-MiniLM-L6-v2 as ELECTRA; does not measure ELECTRA's pretraining",
                config={**minilm_config, "model_type": "electra", "embedding_size": 384},
                convert=encoder_only,
                defaults={**stand_in_settings, "layer_decay": 1.0, "weight_decay": 0.01},
                search_space=stand_in_space,
            ),
        )
    ]
