"""Saving a trained model: what the process that trained it writes, and what is then kept of it."""

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
from toxbench.evaluation.thresholds import predict
from toxbench.plugin.registry import Registry
from toxbench.records import CellRecord
from toxbench.report.model_card import (
    FRONT_MATTER,
    INTENDED_USE,
    INTRODUCTION,
    RoundingError,
    model_card,
)
from toxbench.store.cell_file import PartProbabilities
from toxbench.store.models import PROBABILITIES, WEIGHTS, ModelRecord, SavePolicy, validation_score
from toxbench.training.weights import tokenizer_files
from toxbench.util.atomic import unwritable

_CONFIGS = ("config.json", "tokenizer_config.json")


def write_model(
    made: Path, module: nn.Module, weights: Path, probabilities: npt.NDArray[np.float32]
) -> None:
    """Write a module as a folder that its backbone can be built from again.

    Args:
        made: the folder; what a killed process left there is removed.
        module: trained.
        weights: the checkpoint it started from; its config and tokenizer are copied as they are.
        probabilities: of the test rows, as the module computes them in fp32.

    Raises:
        StorageError: the disk is full or the folder cannot be written; nothing is left there.
        PluginError: the module cannot be written as tensors.
    """
    try:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        save_model(module, str(made / WEIGHTS), metadata={"format": "pt"})
        save_file({"test": np.ascontiguousarray(probabilities)}, made / PROBABILITIES)
        for path in (weights / "config.json", *tokenizer_files(weights)):
            _copy(path, made / path.name)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(made, ignore_errors=True)
        raise unwritable(made, error) from error
    except Exception as error:
        shutil.rmtree(made, ignore_errors=True)
        raise PluginError(
            f"the module cannot be saved: {' '.join(str(error).split())}; --save-models none "
            "trains it without saving"
        ) from error


def keep_model(
    plan: Plan, saved: SavePolicy, record: CellRecord, probabilities: PartProbabilities
) -> None:
    """Put a model that was just written in its place, unless a better one makes it needless.

    Args:
        plan: of the run.
        saved: which models it keeps.
        record: of the cell.
        probabilities: of the cell.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    assert record.weights is not None  # noqa: S101 - a backbone's
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
        thresholds=record.thresholds,
        max_length=record.settings.max_length,
        precision=record.environment.precision,
        score=validation_score(record),
    )
    made = plan.store.models.temporary_path(record.key)

    def card() -> str:
        exact = load_file(made / PROBABILITIES)["test"]
        rounding = _rounding(exact, probabilities["test"], record)
        tables = model_card(model, record, plan.store.protocol(), rounding)
        render = Registry.discover([]).report_format("markdown").item.render  # toxbench's own
        texts = [render(table).strip() + "\n" for table in tables]
        return "\n".join([FRONT_MATTER, INTRODUCTION, *texts, INTENDED_USE])

    plan.store.models.publish(model, card)


def _rounding(
    exact: npt.NDArray[np.float32], stored: npt.NDArray[np.float32], record: CellRecord
) -> RoundingError:
    half = record.thresholds[HALF]
    return RoundingError(
        largest=float(np.abs(exact - stored).max(initial=0)),
        decisions=int((predict(exact, half) != predict(stored, half)).sum()),
    )


def _copy(source: Path, target: Path) -> None:
    """Copy a file; where a config names folders of this machine, without those names."""
    if source.name in _CONFIGS:
        content = json.loads(source.read_text(encoding="utf-8"))
        kept = {name: value for name, value in content.items() if not _is_local(name, value)}
        if kept != content:
            target.write_text(json.dumps(kept, indent=2), encoding="utf-8")
            return
    shutil.copyfile(source, target)


def _is_local(name: str, value: object) -> bool:
    return name.endswith("name_or_path") or (isinstance(value, str) and os.path.isabs(value))
