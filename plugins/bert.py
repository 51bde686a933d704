"""BERT (Devlin et al. 2019, arXiv:1810.04805), base and uncased."""

from toxbench import (
    Backbone,
    StandIn,
    TrainSettings,
    first_token_classifier,
    hookimpl,
    stand_in_space,
)


@hookimpl
def toxbench_backbones() -> list[Backbone]:
    """Register BERT."""
    return [
        Backbone(
            name="bert",
            checkpoint="google-bert/bert-base-uncased",
            defaults=TrainSettings(learning_rate=3e-5, head_learning_rate=3e-4, epochs=4),
            stand_in=StandIn(
                note="all-MiniLM-L6-v2",
                config={
                    "model_type": "bert",
                    "vocab_size": 30522,
                    "hidden_size": 384,
                    "num_hidden_layers": 6,
                    "num_attention_heads": 12,
                    "intermediate_size": 1536,
                    "hidden_act": "gelu",
                    "max_position_embeddings": 512,
                    "type_vocab_size": 2,
                    "layer_norm_eps": 1e-12,
                    "pad_token_id": 0,
                },
                # It was trained on the mean of its tokens, so its pooler never was: leave it out.
                build=first_token_classifier,
                defaults={"learning_rate": 2e-4, "head_learning_rate": 2e-3, "epochs": 12},
                search_space=stand_in_space,
            ),
        )
    ]
