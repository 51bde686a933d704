"""DistilBERT (Sanh et al. 2019, arXiv:1910.01108), base and uncased."""

from toxbench import (
    Backbone,
    StandIn,
    Tensors,
    TrainSettings,
    hookimpl,
    stand_in_settings,
    stand_in_space,
)

# BERT's name -> DistilBERT's name, within one layer.
LAYER_NAMES = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}


def every_second_layer(tensors: Tensors) -> Tensors:
    """Keep layers 0, 2 and 4, as the paper does to initialize the student (section 3)."""
    # DistilBERT has no token types: add the one of single texts to the positions.
    positions = tensors["embeddings.position_embeddings.weight"]
    token_type = tensors["embeddings.token_type_embeddings.weight"][0]
    converted = {
        "embeddings.word_embeddings.weight": tensors["embeddings.word_embeddings.weight"],
        "embeddings.position_embeddings.weight": positions + token_type,
        "embeddings.LayerNorm.weight": tensors["embeddings.LayerNorm.weight"],
        "embeddings.LayerNorm.bias": tensors["embeddings.LayerNorm.bias"],
    }
    for target, source in enumerate((0, 2, 4)):
        for bert_name, distilbert_name in LAYER_NAMES.items():
            for kind in ("weight", "bias"):
                converted[f"transformer.layer.{target}.{distilbert_name}.{kind}"] = tensors[
                    f"encoder.layer.{source}.{bert_name}.{kind}"
                ]
    return {f"distilbert.{name}": tensor for name, tensor in converted.items()}


@hookimpl
def toxbench_backbones() -> list[Backbone]:
    """Register DistilBERT."""
    return [
        Backbone(
            name="distilbert",
            checkpoint="distilbert/distilbert-base-uncased",
            model_type="distilbert",
            defaults=TrainSettings(learning_rate=5e-5, head_learning_rate=5e-4, epochs=4),
            stand_in=StandIn(
                note="every second layer of all-MiniLM-L6-v2",
                config={
                    "model_type": "distilbert",
                    "vocab_size": 30522,
                    "dim": 384,
                    "n_layers": 3,
                    "n_heads": 12,
                    "hidden_dim": 1536,
                    "max_position_embeddings": 512,
                    "pad_token_id": 0,
                },
                convert=every_second_layer,
                defaults={**stand_in_settings, "learning_rate": 1.5e-4},
                search_space=stand_in_space,
            ),
        )
    ]
