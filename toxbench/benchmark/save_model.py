"""Saving trained models.

The process that trains a model writes it to a temporary folder. The main process then publishes it
with its record and model card, unless a better model of the candidate exists.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_model
from torch import nn

from toxbench.benchmark.plan import Plan
from toxbench.errors import PluginError
from toxbench.evaluation.definitions import HALF
from toxbench.evaluation.thresholds import calibrate, predict
from toxbench.plugin.registry import Registry
from toxbench.records import CellRecord
from toxbench.report.model_card import (
    FRONT_MATTER,
    INTENDED_USE,
    INTRODUCTION,
    RoundingError,
    model_card,
)
from toxbench.store.files import PartProbabilities
from toxbench.store.models import PROBABILITIES, WEIGHTS, ModelRecord, SavePolicy, validation_score
from toxbench.training.weights import tokenizer_files
from toxbench.util.atomic import write_error

_CONFIGS = ("config.json", "tokenizer_config.json")


def write_model(
    target: Path, module: nn.Module, weights: Path, probabilities: npt.NDArray[np.float32]
) -> None:
    """Write a module to a folder from which its backbone can be built again.

    Args:
        target: the folder; files of a killed process in it are removed first.
        module: trained.
        weights: folder of its initial checkpoint, whose config and tokenizer are copied.
        probabilities: of the test rows, float32 ``[row, label]``, computed in fp32.

    Raises:
        StorageError: the disk is full or the folder cannot be written; the folder is removed.
        PluginError: the module cannot be written as tensors.
    """
    try:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        save_model(module, str(target / WEIGHTS), metadata={"format": "pt"})
        save_file({"test": np.ascontiguousarray(probabilities)}, target / PROBABILITIES)
        for path in (weights / "config.json", *tokenizer_files(weights)):
            _copy_without_paths(path, target / path.name)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise write_error(target, error) from error
    except Exception as error:
        shutil.rmtree(target, ignore_errors=True)
        raise PluginError(
            f"the module cannot be saved: {' '.join(str(error).split())}; use --save-models none "
            "to train it without saving"
        ) from error


def publish_model(
    plan: Plan, saved: SavePolicy, record: CellRecord, probabilities: PartProbabilities
) -> None:
    """Publish the model that `write_model` wrote for a cell, unless a better one exists.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    assert record.weights is not None  # noqa: S101 - only backbones have models
    assert record.settings is not None  # noqa: S101
    model = ModelRecord(
        key=record.key,
        saved=saved,
        fingerprint=record.fingerprint,
        synthetic=plan.is_synthetic,
        distribution=record.distribution,
        weights=record.weights,
        tuned=record.tuning is not None,
        labels=plan.protocol.comments.labels,
        calibration=record.calibration,
        thresholds={
            rule: tuple(calibrate(np.array(values), record.calibration).tolist())
            for rule, values in record.thresholds.items()
        },
        max_length=record.settings.max_length,
        long_text=record.settings.long_text,
        precision=record.environment.precision,
        score=validation_score(record),
    )
    temporary = plan.store.models.temporary_path(record.key)

    def make_card() -> str:
        exact = load_file(temporary / PROBABILITIES)["test"]
        rounding = _rounding(exact, probabilities["test"], record)
        tables = model_card(model, record, plan.store.protocol(), rounding)
        render = Registry.built_in().report_format("markdown").item.render
        texts = [render(table).strip() + "\n" for table in tables]
        return "\n".join([FRONT_MATTER, INTRODUCTION, *texts, INTENDED_USE])

    plan.store.models.publish(model, make_card)


def _rounding(
    exact: npt.NDArray[np.float32], stored: npt.NDArray[np.float32], record: CellRecord
) -> RoundingError:
    half = record.thresholds[HALF]
    return RoundingError(
        largest=float(np.abs(exact - stored).max(initial=0)),
        decisions=int((predict(exact, half) != predict(stored, half)).sum()),
    )


def _copy_without_paths(source: Path, target: Path) -> None:
    """Copy a file; leave out the entries of a config that name folders of this machine."""
    if source.name in _CONFIGS:
        content = json.loads(source.read_text(encoding="utf-8"))
        portable = {name: value for name, value in content.items() if not _is_local(name, value)}
        if portable != content:
            target.write_text(json.dumps(portable, indent=2), encoding="utf-8")
            return
    shutil.copyfile(source, target)


def _is_local(name: str, value: object) -> bool:
    return name.endswith("name_or_path") or (isinstance(value, str) and os.path.isabs(value))
