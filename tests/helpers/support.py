"""Small real checkpoints, tables and records for tests."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from toxbench.data.table import TextDataset
    from toxbench.records import Audit

TIMEOUT = 600  # seconds; only a hang takes longer, on a busy machine as well
REAL_TABLE_SHA256 = "a2408d78f4c8380a8acbc1b1a13b8f4d22868a74fa03c07a38ab00375b876eab"

_WORDS = ("you", "fool", "thank", "again", "and", "the", "is", "not", "good", "bad", "film")
_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; fail after `TIMEOUT` seconds."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"not true within {TIMEOUT} s"
        time.sleep(0.02)


def write_checkpoint(folder: Path, model_type: str = "bert", seed: int = 0) -> Path:
    """Write a random checkpoint of a real architecture with a WordPiece tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModel, BertTokenizerFast

    folder.mkdir(parents=True)
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789"]
    pieces = letters + [f"##{letter}" for letter in letters]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, *pieces]
    vocab = folder / "vocab.txt"
    vocab.write_text("\n".join(dict.fromkeys(vocabulary)), encoding="utf-8")
    BertTokenizerFast(str(vocab)).save_pretrained(folder)
    sizes: dict[str, int] = {**_SIZES, "intermediate_size": 32}
    if model_type == "distilbert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    config = AutoConfig.for_model(
        model_type, vocab_size=len(set(vocabulary)), max_position_embeddings=130, pad_token_id=0,
        **sizes,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModel.from_config(config).save_pretrained(folder)
    return folder


def build_classifier(folder: Path, label_count: int) -> "nn.Module":
    """Build the module of a backbone without a plugin."""
    from toxbench import Backbone

    return Backbone(name="tiny", checkpoint="a/b").build(folder, label_count)


def write_table(path: Path, rows: int = 60) -> Path:
    """Write a small CSV with three labels: a word determines IsRude, no row has IsNever."""
    lines = ["id,text,IsRude,IsLong,IsNever"]
    for row in range(rows):
        rude, long = row % 2, int(row % 5 == 0)
        text = " ".join(["you fool" if rude else "thank you", "again and " * (8 * long), f"w{row}"])
        lines.append(f"c{row},{text},{rude},{long},0")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object."""
    content: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return content


def make_comments(
    rows: int, groups: list[str | None] | None = None, texts: list[str] | None = None, seed: int = 0
) -> "TextDataset":
    """Make a table in memory with four labels of prevalence 0.5, 0.2, 0.05 and 0."""
    import numpy as np

    from toxbench.data.table import TextDataset

    prevalences = np.array([0.5, 0.2, 0.05, 0.0])
    targets = (np.random.default_rng(seed).random((rows, 4)) < prevalences).astype(np.uint8)
    comments = TextDataset(
        name="made.csv",
        ids=tuple(f"c{row}" for row in range(rows)),
        texts=tuple(texts or (f"text {row}" for row in range(rows))),
        codes=targets,
        labels=("IsA", "IsB", "IsC", "IsNever"),
        groups=None if groups is None else tuple(groups),
        ignored_columns=(),
        columns={"text": "text", "id": "id", "group": None},
    )
    comments.targets.setflags(write=True)  # so that tests can change them
    return comments


def make_audit(**changes: Any) -> "Audit":
    """Make the audit of 200 test rows without a leak."""
    from toxbench.records import Audit

    fields: dict[str, Any] = {
        "test_rows": 200, "leaked_rows": 0, "exact_copies": (), "near_copies": (),
        "near_copy_definition": "much alike", "shared_groups": None, "label_conflicts": (),
        "implications": (), "implication_count": 0, "never_positive_labels": (),
        "always_positive_labels": (),
    }  # fmt: skip
    return Audit(**(fields | changes))
