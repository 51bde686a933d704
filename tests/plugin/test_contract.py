"""Every built-in backbone keeps the contract, on a tiny checkpoint of its real architecture."""

from pathlib import Path
from typing import Any

import pytest

from toxbench import Backbone
from toxbench.plugin.registry import Registry
from toxbench.testing import BackboneContract, write_checkpoint

# Backbone -> architecture, and what makes the tiny one as the real one is.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {}),
    "distilbert": ("distilbert", {}),
    "roberta": ("roberta", {}),
    # As microsoft/deberta-v3-base/config.json has them; 128 tokens are more than 16 buckets.
    "deberta-v3": (
        "deberta-v2",
        {
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "max_relative_positions": -1,
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
    "electra": ("electra", {}),
    "minilm": ("bert", {}),
    # Three layers: one that looks at all tokens, and two at 16 around each.
    "modernbert": ("modernbert", {"num_hidden_layers": 3, "local_attention": 16}),
    "xlm-roberta": ("xlm-roberta", {"type_vocab_size": 1}),
}
TOKENIZERS = {
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "deberta-v3": "DebertaV2Tokenizer",
    "electra": "BertTokenizer",
    "minilm": "BertTokenizer",
    "modernbert": "TokenizersBackend",
    "xlm-roberta": "XLMRobertaTokenizer",
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.discover(only=[])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {
        name: write_checkpoint(root / name, model_type, **sizes)
        for name, (model_type, sizes) in ARCHITECTURES.items()
    }


def test_every_built_in_backbone_is_tested(registry: Registry) -> None:
    assert set(registry.backbones) == set(ARCHITECTURES) == set(TOKENIZERS)


@pytest.mark.parametrize("name", ARCHITECTURES)
class TestBuiltIn(BackboneContract):
    """The contract, once for each."""

    @pytest.fixture
    def backbone(self, registry: Registry, name: str) -> Backbone:
        return registry.backbone(name).item

    @pytest.fixture
    def checkpoint(self, folders: dict[str, Path], name: str) -> Path:
        return folders[name]

    def test_the_tokenizer_is_of_the_real_class(self, backbone: Backbone, checkpoint: Path) -> None:
        tokenizer = backbone.tokenizer(checkpoint)
        assert type(tokenizer).__name__ == TOKENIZERS[backbone.name]
        (ids,) = tokenizer(["you are a fool"])["input_ids"]
        unknown = tokenizer.unk_token_id
        assert len(ids) > 4
        assert unknown not in ids
