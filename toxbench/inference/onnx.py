"""Export of a stored model as an ONNX file, compared with the stored model."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from toxbench.errors import PluginError
from toxbench.evaluation.definitions import HALF
from toxbench.inference.export import (
    LabelledTexts,
    Variant,
    check_target,
    check_token_ids,
    compare,
    export_error,
    label_thresholds,
    sample_batch,
    write_tokenizer,
)
from toxbench.inference.model import CalibratedForward, Classifier, Model
from toxbench.plugin.contracts import Table
from toxbench.plugin.loading import quiet_transformers
from toxbench.records import Calibration
from toxbench.store.models import CARD, RECORD, WEIGHTS
from toxbench.training.device import choose_device
from toxbench.util.atomic import atomic_folder

TOLERANCE = 1e-4  # largest difference of a probability
EXACT, QUANTIZED, TOKENIZER, EXAMPLE = (
    "model.onnx", "model.int8.onnx", "tokenizer.json", "example.py",
)  # fmt: skip
_MAX_FILE_BYTES = 2_000_000_000  # protobuf's limit is 2 GiB: larger weights get a file of their own
_LOGGERS = ("torch.onnx", "onnxscript")
# Warnings of torch.onnx about its own code, and about the name of an axis that two inputs share.
_WARNINGS = (r"`isinstance\(treespec, LeafSpec\)` is deprecated", r"# The axis name: ")
_CARD_USAGE = """
## With ONNX Runtime

`python example.py "some comment"` needs only the packages onnxruntime, numpy and tokenizers.
`tokenizer.json` cuts comments after {max_length} tokens; in training they were cut by the rule
{long_text}, which toxbench predict follows. The sigmoid of the logits of `{file}` is the
calibrated probability: temperature and shift are part of the file. `toxbench.json` has the labels
in the order of the logits, and the thresholds of each rule.
"""


class OnnxModule(nn.Module):
    """An ONNX file as a module, which computes on the CPU with as many threads as torch."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 ``[batch, label]``."""
        inputs = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        return torch.from_numpy(self._session.run(["logits"], inputs)[0])


def export_onnx(
    model: Model, source: Path, target: Path, quantize: bool, rows: LabelledTexts | None
) -> Table | None:
    """Write a model as an ONNX file that computes calibrated logits, and compare it.

    The folder ``target`` is written atomically, as by `toxbench.inference.export.export`.

    Args:
        model: the stored model.
        source: its folder.
        target: the folder to write.
        quantize: write a second file with integer matrices.
        rows: test rows to measure scores and speed on; None: these are not measured.

    Returns:
        the measurement; None without ``rows``.

    Raises:
        SettingsError: as `check_target`.
        PluginError: the module cannot be exported, or the file has other probabilities.
        StorageError: the disk is full or the folder cannot be written.
    """
    check_target(target)
    with quiet_transformers(), atomic_folder(target) as folder:
        _write_file(model, folder / EXACT)
        _write_tokenizer(model, folder)
        _check_file(model, folder / EXACT)
        if quantize:
            _quantize(model, folder)
        table = None
        if rows is not None:
            variants = _variants(model, source / WEIGHTS, folder)
            table = compare(variants, rows, model.record.thresholds[HALF])
        _write_texts(model, source, folder, table)
    return table


def _write_file(model: Model, path: Path) -> None:
    """Export the calibrated module; raises `PluginError` if torch cannot."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    forward, batch = _calibrated(model), sample_batch(model, model.module)
    axes = {0: "batch", 1: "token"}
    try:
        with _quiet_exporter(), torch.no_grad():
            program = torch.onnx.export(
                forward, tuple(batch.values()), input_names=list(batch), output_names=["logits"],
                dynamic_shapes=(axes, axes), verbose=False,
            )  # fmt: skip
    except Exception as error:
        raise _export_failure("torch.onnx cannot export", model, error) from error
    assert program is not None  # noqa: S101 - only torch's former exporter returns None
    ClearMetadataAndDocStringPass()(program.model)  # it has paths of this machine
    size = sum(tensor.nbytes for tensor in forward.state_dict().values())
    program.save(path, external_data=size > _MAX_FILE_BYTES)


def _write_tokenizer(model: Model, folder: Path) -> None:
    """Write a tokenizer whose one file also cuts and pads; raises `PluginError` if it differs."""
    write_tokenizer(model, folder)
    path, original = folder / TOKENIZER, model.tokenizer
    if not path.is_file():
        raise export_error(f"its tokenizer cannot be written as {TOKENIZER}")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(model.record.max_length, direction=original.truncation_side)
    tokenizer.enable_padding(pad_id=original.pad_token_id or 0, pad_token=str(original.pad_token))
    tokenizer.save(str(path))
    check_token_ids(model, lambda phrase: tokenizer.encode(phrase).ids)


def _check_file(model: Model, path: Path) -> None:
    """Compare probabilities of a padded batch, and of each of its rows alone without padding."""
    stored, batch = _calibrated(model), sample_batch(model, model.module)
    rows = enumerate(batch["attention_mask"].sum(dim=1).tolist())
    single = [{name: t[[row], :length] for name, t in batch.items()} for row, length in rows]
    try:
        exported = OnnxModule(path)
        with torch.inference_mode():
            pairs = [(stored(**inputs), exported(**inputs)) for inputs in (batch, *single)]
    except Exception as error:
        raise _export_failure("onnxruntime cannot compute", model, error) from error
    largest = max(float((a.sigmoid() - b.sigmoid()).abs().max()) for a, b in pairs)
    if not largest <= TOLERANCE:  # NaN is refused, too
        raise export_error(f"its probabilities differ by {largest:.1e}")


def _quantize(model: Model, folder: Path) -> None:
    """Write a copy with integer weights; the inputs of its matrix products are rounded, too."""
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = folder / "prepared.onnx"
    try:
        quant_pre_process(folder / EXACT, prepared, skip_symbolic_shape=True)
        # One scale for each column is more accurate. Weights have 7 bits, because processors
        # without VNNI cut sums of products of 8 bits.
        quantize_dynamic(prepared, folder / QUANTIZED, per_channel=True, reduce_range=True)
    except Exception as error:
        raise _export_failure("onnxruntime cannot quantize", model, error) from error
    prepared.unlink()


def _variants(model: Model, weights: Path, folder: Path) -> dict[str, Variant]:
    """Return the stored model in each precision of this CPU, and each ONNX file of a folder."""
    cpu = choose_device("cpu", "fp32")
    variants = {
        f"torch {device.precision}": Variant(Classifier(model, device), weights.stat().st_size)
        for device in (cpu, choose_device("cpu"))
    }
    record = model.record.model_copy(update={"calibration": Calibration()})  # it is in the file
    for name, path in {"fp32": folder / EXACT, "int8": folder / QUANTIZED}.items():
        if path.is_file():
            exported = replace(model, record=record, module=OnnxModule(path))
            size = sum(part.stat().st_size for part in folder.glob(f"{path.name}*"))
            variants[f"onnx {name}"] = Variant(Classifier(exported, cpu), size)
    return variants


def _write_texts(model: Model, source: Path, folder: Path, table: Table | None) -> None:
    """Write the settings, the example and the model card."""
    record = model.record
    file = QUANTIZED if (folder / QUANTIZED).is_file() else EXACT
    settings = {
        "model": file,
        "labels": record.labels,
        "thresholds": label_thresholds(record),
        "calibration": record.calibration.model_dump(),
        "max_length": record.max_length,
        "long_text": record.long_text,
        "measured": [dict(zip(table.headers, r, strict=True)) for r in table.rows] if table else [],
    }
    (folder / RECORD).write_text(json.dumps(settings, indent=2), encoding="utf-8")
    example = Path(__file__).with_name("onnx_example.py.in").read_text(encoding="utf-8")
    (folder / EXAMPLE).write_text(example, encoding="utf-8")
    card = (source / CARD).read_text(encoding="utf-8")
    usage = _CARD_USAGE.format(max_length=record.max_length, long_text=record.long_text, file=file)
    card = card.replace("library_name: transformers", "library_name: onnx", 1)
    (folder / CARD).write_text(card + usage, encoding="utf-8")


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence warnings of the exporter that do not depend on the model."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in _WARNINGS:
            warnings.filterwarnings("ignore", message)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _calibrated(model: Model) -> nn.Module:
    record = model.record
    return CalibratedForward(model.module, len(record.labels), record.calibration).eval()


def _export_failure(problem: str, model: Model, error: Exception) -> PluginError:
    cause = error.__cause__ or error  # torch.onnx adds advice for authors of exporters
    reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
    return PluginError(
        f"{problem} {type(model.module).__name__}: {reason}; nothing was written; toxbench predict "
        "works with the stored model"
    )
