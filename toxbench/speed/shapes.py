"""Random weights of a given shape: speed does not depend on what was learnt before."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import AutoConfig, AutoModel

from toxbench.benchmark.workbench import quiet_transformers
from toxbench.errors import SettingsError
from toxbench.speed.request import Shape

_WIDER = 4  # BERT's intermediate size is four times the hidden one


@contextmanager
def random_checkpoint(like: Path, shape: Shape) -> Iterator[Path]:
    """Yield a checkpoint folder with random weights; it is gone afterwards.

    Args:
        like: a checkpoint whose architecture, vocabulary and tokenizer are taken.
        shape: size of its encoder.

    Raises:
        SettingsError: transformers cannot build that.
    """
    with TemporaryDirectory(prefix="toxbench-shape-") as name, quiet_transformers():
        folder = Path(name)
        for file in like.iterdir():
            if file.is_file() and file.suffix in {".json", ".txt", ".model"}:
                shutil.copyfile(file, folder / file.name)
        try:
            config = AutoConfig.from_pretrained(
                like, local_files_only=True, trust_remote_code=False
            )
            _reshape(config, shape)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = AutoModel.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
                model.save_pretrained(folder)
        except (ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise SettingsError(f"--shape: no such model can be built: {reason}") from error
        yield folder


def _reshape(config: object, shape: Shape) -> None:
    """Change sizes through BERT's names for them, which every configuration understands."""
    for name, value in {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
    }.items():
        setattr(config, name, value)
    wide = "hidden_dim" if hasattr(config, "hidden_dim") else "intermediate_size"
    setattr(config, wide, _WIDER * shape.hidden)
