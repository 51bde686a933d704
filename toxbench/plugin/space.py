"""What `toxbench tune` may choose: setting name -> range or choices. Imports no optuna."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = str | int | float


@dataclass(frozen=True)
class Range:
    """Every number from ``low`` to ``high``, both included; whole ones for a whole setting.

    Attributes:
        log: draw evenly on a logarithmic scale.
        when: (setting, value): the range is only there while that setting has that value.
    """

    low: float
    high: float
    log: bool = False
    when: tuple[str, Value] | None = None


@dataclass(frozen=True)
class Choice:
    """One of some values; ``when`` as for `Range`."""

    values: tuple[Value, ...]
    when: tuple[str, Value] | None = None


Dimension: TypeAlias = Range | Choice
Space: TypeAlias = Mapping[str, Dimension]

# For checkpoints of BERT's size: around the rates and epochs of Devlin et al. 2019 (appendix A.3)
# and Mosbach et al. 2021 (arXiv:2006.04884).
fine_tuning_space: Space = {
    "learning_rate": Range(1e-5, 2e-4, log=True),
    "head_learning_rate": Range(1e-4, 5e-3, log=True),
    "layer_decay": Range(0.7, 1.0),
    "epochs": Range(2, 8),
    "batch_size": Choice((8, 16, 32)),
    "warmup": Range(0.0, 0.2),
    "weight_decay": Range(1e-3, 0.1, log=True),
    "dropout": Range(0.0, 0.3),
    "loss": Choice(("bce", "weighted-bce", "focal")),
    "pos_weight_cap": Range(1.5, 10.0, log=True, when=("loss", "weighted-bce")),
    "focal_gamma": Range(0.5, 3.0, when=("loss", "focal")),
    "max_length": Choice((64, 128)),
}

# For the small stand-in weights: they want higher rates, lower layers that move less, and epochs
# enough to become sure of themselves. Chosen by scores inside the real table's train rows.
stand_in_space: Space = {
    "learning_rate": Range(1.5e-4, 3e-4, log=True),
    "head_learning_rate": Range(1e-3, 4e-3, log=True),
    "layer_decay": Range(0.8, 0.95),
    "epochs": Range(6, 8),
    "batch_size": Choice((16, 32)),
    "dropout": Range(0.05, 0.2),
    "loss": Choice(("bce", "weighted-bce")),
    "pos_weight_cap": Range(1.5, 5.0, log=True, when=("loss", "weighted-bce")),
    "max_length": Choice((96, 128)),
}
