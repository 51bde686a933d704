"""Search spaces that plugins declare: legal values, defaults inside, immutable dimensions."""

import dataclasses
import subprocess
import sys

import pytest

from toxbench import Backbone, Choice, Range, Space, fine_tuning_space, stand_in_space
from toxbench.config import build_settings
from toxbench.plugin.registry import Registry
from toxbench.settings import TrainSettings
from toxbench.tuning.space import check_space

SPACES = {"fine_tuning_space": fine_tuning_space, "stand_in_space": stand_in_space}
BACKBONES = {name: entry.item for name, entry in Registry.discover().backbones.items()}


def boundary_values(dimension: Range | Choice) -> tuple[object, ...]:
    return dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_built_in_spaces_hold_legal_values(space: Space) -> None:
    for name, dimension in space.items():
        for value in boundary_values(dimension):
            assert getattr(build_settings(TrainSettings, {name: value}), name) == value


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_built_in_ranges_are_ascending(space: Space) -> None:
    for dimension in space.values():
        if isinstance(dimension, Range):
            assert dimension.low < dimension.high
            assert dimension.low > 0 or not dimension.log


def test_only_parameters_of_omitted_losses_are_dropped() -> None:
    """A stand-in's dimensions replace the backbone's, and a condition may not hold any more."""
    assert set(check_space(fine_tuning_space, TrainSettings(), "")) == set(fine_tuning_space)
    merged = {**fine_tuning_space, **stand_in_space}
    assert set(merged) - set(check_space(merged, TrainSettings(), "")) == {"focal_gamma"}


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
def test_built_in_defaults_lie_in_the_space(backbone: Backbone) -> None:
    backbone_defaults = backbone.defaults.model_dump()
    pairs = [(backbone_defaults, backbone.search_space)]
    if backbone.stand_in is not None:
        space = {**backbone.search_space, **backbone.stand_in.search_space}
        pairs.append((backbone_defaults | dict(backbone.stand_in.defaults), space))
    for defaults, space in pairs:
        for name in ("learning_rate", "head_learning_rate", "batch_size", "loss", "max_length"):
            dimension = space[name]
            if isinstance(dimension, Choice):
                assert defaults[name] in dimension.values
            else:
                assert dimension.low <= defaults[name] <= dimension.high


def test_default_search_space_can_be_replaced() -> None:
    space = {"epochs": Range(1, 2)}
    assert Backbone(name="x", checkpoint="a/b").search_space is fine_tuning_space
    assert Backbone(name="x", checkpoint="a/b", search_space=space).search_space == space


@pytest.mark.parametrize("dimension", [Range(1, 2), Choice((1, 2))])
def test_dimension_is_frozen_and_equal_by_value(dimension: Range | Choice) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        dimension.when = ("loss", "focal")  # type: ignore[misc]
    assert dataclasses.replace(dimension) == dimension
    assert dataclasses.replace(dimension, when=("loss", "focal")) != dimension
    assert hash(dataclasses.replace(dimension)) == hash(dimension)


def test_declaring_a_space_imports_no_heavy_package() -> None:
    code = (
        "import sys, toxbench; toxbench.Range(1, 2), toxbench.Choice((1,)); "
        "print({'optuna', 'torch', 'matplotlib'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
