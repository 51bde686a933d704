"""Checkpoints of any size with random weights: speed does not depend on the values."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import AutoConfig, AutoModel

from toxbench.plugin.loading import quiet_transformers

_WIDER = 4  # BERT's intermediate size is four times the hidden one


@contextmanager
def random_checkpoint(like: Path, hidden: int, layers: int, heads: int) -> Iterator[Path]:
    """Yield a checkpoint folder with random weights, which is removed afterwards.

    Args:
        like: a BERT checkpoint, which gives the vocabulary and the tokenizer.
        hidden, layers, heads: size of the encoder.
    """
    with TemporaryDirectory(prefix="toxbench-shape-") as name, quiet_transformers():
        folder = Path(name)
        for file in like.iterdir():
            if file.is_file() and file.suffix in {".json", ".txt", ".model"}:
                shutil.copyfile(file, folder / file.name)
        config = AutoConfig.from_pretrained(like, local_files_only=True, trust_remote_code=False)
        config.hidden_size = hidden
        config.num_hidden_layers = layers
        config.num_attention_heads = heads
        config.intermediate_size = _WIDER * hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            AutoModel.from_config(config, trust_remote_code=False).save_pretrained(folder)
        yield folder
