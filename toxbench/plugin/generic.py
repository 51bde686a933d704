"""Backbones without a plugin: a repository of the Hub or a folder."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toxbench.errors import SettingsError
from toxbench.plugin.contracts import (
    Backbone,
    Range,
    Space,
    fine_tuning_space,
    stand_in_settings,
    stand_in_space,
)
from toxbench.settings import digest
from toxbench.util.content import content_name, hash_files
from toxbench.util.text import safe_quote

_HUB_ID = re.compile(r"(?P<repository>\w[\w.-]*(/[\w.-]+)?)(@(?P<revision>\w[\w./-]*))?", re.ASCII)
_MAX_NAME = 64
# Similarity above which a word is a misspelt name: 'brt' has 0.86 of 'bert'.
_TYPO = 0.7
# Largest hidden size of a class -> settings and dimensions that differ from those of BERT base.
# MiniLM has 384 features, BERT base 768. The rates of large models are those of Liu et al. 2019
# (arXiv:1907.11692, table 10) and He et al. 2021 (arXiv:2111.09543, appendix).
_SIZE_CLASSES: Mapping[float, tuple[Mapping[str, Any], Space]] = {
    512: (stand_in_settings, stand_in_space),
    1000: ({}, {}),
    float("inf"): (
        {"learning_rate": 1e-5, "head_learning_rate": 1e-4},
        {**fine_tuning_space, "learning_rate": Range(3e-6, 5e-5, log=True)},
    ),
}
_HIDDEN_SIZES = ("hidden_size", "dim", "d_model", "n_embd")  # in config.json, by architecture


@dataclass(frozen=True, kw_only=True)
class GenericBackbone(Backbone):
    """A classifier of transformers with the defaults of its size.

    ``head`` lists the new layers of all classifiers; others that a checkpoint lacks are added when
    it is loaded. ModernBERT's ``head`` is pretrained.
    """

    head: tuple[str, ...] = (
        "classifier", "pre_classifier", "pooler", "score", "classification_head", "logits_proj",
        "sequence_summary",
    )  # fmt: skip

    def size_defaults(self, weights: Path) -> tuple[Mapping[str, Any], Space]:
        """Return the settings and dimensions of the checkpoint's size class."""
        config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config", config)
        size = next((config[name] for name in _HIDDEN_SIZES if name in config), 768)
        return next(values for limit, values in _SIZE_CLASSES.items() if size <= limit)


def backbone_from_folder(folder: Path) -> GenericBackbone:
    """Return the backbone of a checkpoint folder, named after the folder and its content.

    Raises:
        SettingsError: the folder does not exist or cannot be read.
    """
    hashes = hash_files(folder)
    if not hashes:
        raise SettingsError(f"--backbones: {safe_quote(str(folder))} is not a folder with files")
    title = _valid_name(f"{folder.name}-{content_name(hashes)[:7]}")
    return GenericBackbone(name=title, checkpoint="")


def backbone_from_hub(word: str) -> GenericBackbone:
    """Return the backbone of ``[organization/]model[@revision]``.

    Its name has ``--`` for ``/`` and ``@``, as folders of the Hub's cache.

    Raises:
        SettingsError: the word has another form, or is also a folder.
    """
    match = _HUB_ID.fullmatch(word)
    if match is None or ".." in word:
        raise SettingsError(
            f"--backbones {safe_quote(word)} is no registered name, no id of the Hub "
            "(organization/model@revision) and no folder (./folder)"
        )
    if match["revision"] is None and Path(word).is_dir():
        raise SettingsError(
            f"--backbones {word} is a folder here, and may be an id of the Hub: write ./{word} for "
            f"the folder, or {word}@main for the Hub"
        )
    repository, revision = match["repository"], match["revision"] or "main"
    title = repository if revision == "main" else f"{repository}@{revision}"
    return GenericBackbone(name=_valid_name(title), checkpoint=repository, revision=revision)


def is_typo(word: str, names: Iterable[str]) -> bool:
    """Whether a word is a misspelt name; ``roberta-base`` is not ``roberta``."""
    close = difflib.get_close_matches(word, list(names), n=1, cutoff=_TYPO)
    return bool(close) and not word.startswith(f"{close[0]}-")


def _valid_name(text: str) -> str:
    """Return a text as a name of a backbone; a long one ends in a hash."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", re.sub("[/@]", "--", text)).lstrip("._-")
    return name if len(name) <= _MAX_NAME else f"{name[:50]}-{digest(text)}"
