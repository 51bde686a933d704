"""RoBERTa (Liu et al. 2019, arXiv:1907.11692), base."""

from toxbench import Backbone, StandIn, Tensors, TrainSettings, hookimpl, stand_in_space


def without_token_types(tensors: Tensors) -> Tensors:
    """Give MiniLM's encoder RoBERTa's names, position offset and single token type."""
    import numpy as np

    positions = tensors["embeddings.position_embeddings.weight"]
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if name.startswith(("encoder.", "embeddings.LayerNorm", "embeddings.word_embeddings"))
    }
    # RoBERTa counts positions from pad_token_id + 1, and the WordPiece tokenizer pads with 0.
    kept["embeddings.position_embeddings.weight"] = np.concatenate([positions[:1], positions])
    kept["embeddings.token_type_embeddings.weight"] = tensors[
        "embeddings.token_type_embeddings.weight"
    ][:1].copy()
    return {f"roberta.{name}": tensor for name, tensor in kept.items()}


@hookimpl
def toxbench_backbones() -> list[Backbone]:
    """Register RoBERTa."""
    return [
        Backbone(
            name="roberta",
            checkpoint="FacebookAI/roberta-base",
            defaults=TrainSettings(learning_rate=2e-5, head_learning_rate=2e-4, epochs=5),
            stand_in=StandIn(
                note="all-MiniLM-L6-v2 as RoBERTa; says nothing of RoBERTa's pretraining",
                config={
                    "model_type": "roberta",
                    "vocab_size": 30522,
                    "hidden_size": 384,
                    "num_hidden_layers": 6,
                    "num_attention_heads": 12,
                    "intermediate_size": 1536,
                    "hidden_act": "gelu",
                    "max_position_embeddings": 513,
                    "type_vocab_size": 1,
                    "layer_norm_eps": 1e-12,
                    "pad_token_id": 0,
                },
                convert=without_token_types,
                defaults={"learning_rate": 2e-4, "head_learning_rate": 2e-3, "epochs": 12},
                search_space=stand_in_space,
            ),
        )
    ]
