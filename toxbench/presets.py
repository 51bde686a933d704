"""Named recipes, between a plugin's defaults and what the user sets."""

from collections.abc import Mapping
from typing import Any

from toxbench.errors import SettingsError, nearest
from toxbench.settings import Frozen


class Preset(Frozen):
    """A named recipe: settings between the plugin's defaults and the user's own."""

    train: dict[str, Any]
    split: dict[str, Any]


PRESETS: Mapping[str, Preset] = {
    # The study this project starts from: batch 1, Adam, one rate, everything padded, no
    # validation part, no schedule, the last epoch. fp32, as PyTorch does it untold.
    "notebook": Preset(
        train={
            "epochs": 3,
            "batch_size": 1,
            "accumulation": 1,
            "optimizer": "adam",
            "learning_rate": 1e-5,
            "head_learning_rate": 1e-5,
            "layer_decay": 1.0,
            "weight_decay": 0.0,
            "dropout": None,
            "schedule": "constant",
            "warmup": 0.0,
            "clip_norm": 0.0,
            "max_length": 128,
            "padding": "max_length",
            "loss": "bce",
            "selection": "last",
            "precision": "fp32",
            "eval_steps": 0,
            "patience": 0,
        },
        split={"test_size": 0.2, "validation_size": 0.0, "split_seed": 42},
    )
}


def preset(name: str | None) -> Preset:
    """Return the named recipe, or an empty one for None.

    Raises:
        SettingsError: no preset has that name.
    """
    if name is None:
        return Preset(train={}, split={})
    if name not in PRESETS:
        raise SettingsError(f"no preset is called {name!r}{nearest(name, PRESETS)}")
    return PRESETS[name]
