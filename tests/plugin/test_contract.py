"""Contract tests of the built-in backbones, on tiny checkpoints of their real architectures."""

from pathlib import Path

import pytest
from architectures import ARCHITECTURES, write_all

from toxbench import Backbone
from toxbench.plugin.registry import Registry
from toxbench.testing import BackboneContract, write_checkpoint

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
    return write_all(tmp_path_factory.mktemp("tiny"))


def test_all_built_in_backbones_are_tested(registry: Registry) -> None:
    assert set(registry.backbones) == set(ARCHITECTURES) == set(TOKENIZERS)


@pytest.mark.parametrize("name", ARCHITECTURES)
class TestBuiltIn(BackboneContract):
    """The contract of each built-in backbone."""

    @pytest.fixture
    def backbone(self, registry: Registry, name: str) -> Backbone:
        return registry.backbone(name).item

    @pytest.fixture
    def checkpoint(self, folders: dict[str, Path], name: str) -> Path:
        return folders[name]

    def test_tokenizer_has_the_real_class(self, backbone: Backbone, checkpoint: Path) -> None:
        tokenizer = backbone.tokenizer(checkpoint)
        assert type(tokenizer).__name__ == TOKENIZERS[backbone.name]
        (ids,) = tokenizer(["you are a fool"])["input_ids"]
        unknown = tokenizer.unk_token_id
        assert len(ids) > 4
        assert unknown not in ids


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "gpt2", "gpt2")


@pytest.mark.faults(65)
class TestDecoder(BackboneContract):
    """The contract of a decoder whose tokenizer and configuration have no padding token."""

    @pytest.fixture
    def backbone(self) -> Backbone:
        return Backbone(name="gpt2", checkpoint="openai-community/gpt2")

    @pytest.fixture
    def checkpoint(self, decoder: Path) -> Path:
        return decoder
