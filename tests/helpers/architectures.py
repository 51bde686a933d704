"""Tiny checkpoints of the built-in backbones' architectures."""

from pathlib import Path
from typing import Any

from toxbench.testing import write_checkpoint

# Backbone -> architecture, and the options of the real checkpoint that matter.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {}),
    "distilbert": ("distilbert", {}),
    "roberta": ("roberta", {}),
    # From microsoft/deberta-v3-base/config.json; 128 tokens need more than 16 buckets.
    "deberta-v3": (
        "deberta-v2",
        {
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "max_relative_positions": -1,
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
    "electra": ("electra", {}),
    "minilm": ("bert", {}),
    # Three layers: one with global attention and two with windows of 16 tokens.
    "modernbert": ("modernbert", {"num_hidden_layers": 3, "local_attention": 16}),
    "xlm-roberta": ("xlm-roberta", {"type_vocab_size": 1}),
}


def write_all(root: Path) -> dict[str, Path]:
    """Write a checkpoint for each backbone; return the folders by name."""
    return {
        name: write_checkpoint(root / name, model_type, **sizes)
        for name, (model_type, sizes) in ARCHITECTURES.items()
    }
