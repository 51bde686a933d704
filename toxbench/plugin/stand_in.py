"""What the stand-ins of several backbones share: all-MiniLM-L6-v2 in other architectures."""

from collections.abc import Mapping
from typing import Any

from toxbench.plugin.backbone import Tensors

# Sizes in the words of BERT's configuration; ``model_type`` is for the plugin to say.
minilm_config: Mapping[str, Any] = {
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
}
minilm_as_roberta_config: Mapping[str, Any] = {
    **minilm_config,
    "max_position_embeddings": 513,
    "type_vocab_size": 1,
}


def minilm_as_roberta(tensors: Tensors) -> Tensors:
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
