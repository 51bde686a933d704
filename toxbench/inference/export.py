"""A stored model as a plain folder of Hugging Face, checked against the stored one."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from toxbench.errors import PluginError, SettingsError
from toxbench.inference.model import Model
from toxbench.plugin.modules import quiet_transformers
from toxbench.store.models import CARD
from toxbench.training.predictor import checked_logits
from toxbench.training.weights import of_the_disk
from toxbench.util.atomic import TEMPORARY, unwritable

TOLERANCE = 1e-5  # of a logit, or of its size where that is above 1
_PHRASES = (
    "Thank you for this.",
    "I do not agree with anything that was said here, and I will say why.",
    "1,000 comments? Nobody reads them! :-)",
    "again and again and " * 200,
)

USE = """
## With transformers

```python
from transformers import pipeline

classify = pipeline("text-classification", "FOLDER", top_k=None)
classify("some comment", truncation=True)  # comments are cut at {max_length} tokens, as in training
```

Thresholds of each rule are in `thresholds.json`; 0.5 is one of them.
"""


def check_target(target: Path) -> None:
    """Refuse a target that is there already, unless it is an empty folder.

    Raises:
        SettingsError: saying what to do.
    """
    if target.is_symlink():
        raise SettingsError(f"{target} is a symbolic link; name a folder")
    if target.exists() and not target.is_dir():
        raise SettingsError(f"{target} is there already, and is no folder; name another")
    if target.is_dir() and any(target.iterdir()):
        raise SettingsError(f"{target} is not empty; remove it or name another folder")


def export(model: Model, source: Path, target: Path) -> None:
    """Write a model as transformers reads it; the folder is there whole and checked, or not at all.

    Args:
        model: loaded.
        source: its folder, which has the card.
        target: the new folder.

    Raises:
        SettingsError: as `check_target`.
        PluginError: no class of transformers computes the same.
        StorageError: the disk is full or the folder cannot be written.
    """
    check_target(target)
    with quiet_transformers(), _made(target) as made:
        exported = model.backbone.exported(model.module)
        if not isinstance(exported, nn.Module) or not hasattr(exported, "save_pretrained"):
            raise PluginError(f"exported returned {type(exported).__name__}, no PreTrainedModel")
        _label(exported.config, model.record.labels)
        exported.save_pretrained(made)
        _write_tokenizer(model, made)
        card = (source / CARD).read_text(encoding="utf-8")
        use = USE.format(max_length=model.record.max_length)
        (made / CARD).write_text(card + use, encoding="utf-8")
        (made / "thresholds.json").write_text(_thresholds(model), encoding="utf-8")
        _check(model, made)


@contextmanager
def _made(target: Path) -> Iterator[Path]:
    """Yield a folder to write that becomes the target."""
    made = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(TEMPORARY, f".{target.name[:40]}-", target.parent))
        yield made
        made.chmod(0o755)
        os.replace(made, target)
    except (OSError, SafetensorError) as error:
        raise unwritable(target, of_the_disk(error)) from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def _label(config: Any, labels: tuple[str, ...]) -> None:
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: place for place, label in enumerate(labels)}
    config.problem_type = "multi_label_classification"


def _write_tokenizer(model: Model, made: Path) -> None:
    tokenizer = model.tokenizer
    before = tokenizer.model_max_length
    tokenizer.model_max_length = model.record.max_length
    tokenizer.save_pretrained(made)
    tokenizer.model_max_length = before


def _thresholds(model: Model) -> str:
    labels = model.record.labels
    named = {
        rule: dict(zip(labels, values, strict=True))
        for rule, values in model.record.thresholds.items()
    }
    return json.dumps(named, indent=2)


def _check(model: Model, made: Path) -> None:
    """Load the folder as anybody would and compare; raises `PluginError` where it differs."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            made, local_files_only=True, trust_remote_code=False
        )
        loaded = AutoModelForSequenceClassification.from_pretrained(
            made, local_files_only=True, use_safetensors=True, trust_remote_code=False
        ).eval()
    except Exception as error:
        raise _refused(f"transformers cannot load it ({' '.join(str(error).split())})") from error
    limit = {"truncation": True, "max_length": model.record.max_length}
    for phrase in _PHRASES:
        own = model.tokenizer(phrase, **limit)["input_ids"]
        if tokenizer(phrase, truncation=True)["input_ids"] != own:
            raise _refused("its tokenizer splits a text otherwise")
    known = getattr(loaded.config, "vocab_size", len(tokenizer))
    batch = _batch(model, min(known, len(tokenizer)))
    with torch.inference_mode():
        count = len(model.record.labels)
        ours = checked_logits(model.module(**batch), len(batch["input_ids"]), count)
        theirs = loaded(**batch).logits
    if theirs.shape != ours.shape:
        raise _refused(f"its logits are {list(theirs.shape)}, not {list(ours.shape)}")
    difference = ((theirs - ours).abs() / ours.abs().clamp(min=1)).max().item()
    if not difference <= TOLERANCE:
        raise _refused(f"its logits differ by {difference:.1e}")


def _batch(model: Model, ids_known: int) -> dict[str, torch.Tensor]:
    """Return the phrases and random ids of several lengths, as one padded batch."""
    tokenizer, longest = model.tokenizer, model.record.max_length
    rows = [tokenizer(p, truncation=True, max_length=longest)["input_ids"] for p in _PHRASES]
    generator = torch.Generator().manual_seed(0)
    for length in {3, (3 + longest) // 2, longest}:
        inner = torch.randint(ids_known, (length,), generator=generator).tolist()
        rows.append([rows[0][0], *inner[2:], rows[0][-1]])
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id or 0
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def _refused(why: str) -> PluginError:
    return PluginError(
        f"what was exported is not the stored model: {why}; nothing was written, and toxbench "
        "predict works with the model as it is"
    )
