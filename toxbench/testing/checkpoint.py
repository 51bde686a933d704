"""Tiny random checkpoints of real architectures, with real tokenizers, made without a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# In the words of several architectures; each takes those that it has.
_SIZES = {
    "hidden_size": 16,
    "embedding_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_dim": 32,
    # The default of 128 tokens, and what RoBERTa's kind counts before the first one.
    "max_position_embeddings": 132,
}
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_checkpoint(folder: Path, model_type: str, seed: int = 0, **sizes: Any) -> Path:
    """Write a tiny random checkpoint of an architecture, with a tokenizer of its class.

    It is an ordinary folder: ``toxbench run --weights NAME=FOLDER`` takes it as well.

    Args:
        folder: made where it is missing.
        model_type: what ``config.json`` of the real checkpoint says, such as ``deberta-v2``.
        seed: of the weights.
        sizes: fields of the architecture's configuration that differ from the tiny ones here.

    Returns:
        the folder.

    Raises:
        ValueError: transformers knows no such architecture.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(model_type)
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _pretrained(_config(model_type, tokenizer, sizes)).save_pretrained(folder)
    return folder


def train_tokenizer(
    model_type: str, texts: Sequence[str] | None = None, vocabulary: int = 400
) -> "PreTrainedTokenizerBase":
    """Train a small tokenizer of the class that belongs to an architecture.

    Args:
        model_type: as for `write_checkpoint`.
        texts: to learn the vocabulary from; None: toxbench's synthetic sample.
        vocabulary: pieces at most, and at least the single characters.
    """
    from transformers import AutoConfig, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING

    from toxbench.data.synthetic import sample_comments

    corpus = list(sample_comments().texts if texts is None else texts)
    kinds: Any = TOKENIZER_MAPPING
    kind = kinds.get(type(AutoConfig.for_model(model_type)), None)
    # The general class says nothing of how it splits: ModernBERT's tokenizer.json does.
    if kind in {None, PreTrainedTokenizerFast} or not issubclass(kind, PreTrainedTokenizerFast):
        return _byte_pairs(corpus, vocabulary)
    trained: PreTrainedTokenizerBase = kind().train_new_from_iterator(
        corpus, vocab_size=vocabulary, show_progress=False
    )
    return trained


def _pretrained(config: "PreTrainedConfig") -> "PreTrainedModel":
    """Make the model as its pretraining has it, with the heads that real checkpoints hold."""
    from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForPreTraining

    kinds: tuple[Any, ...] = (AutoModelForPreTraining, AutoModelForMaskedLM)
    kind: Any = next((kind for kind in kinds if type(config) in kind._model_mapping), AutoModel)
    model: PreTrainedModel = kind.from_config(config)
    return model


def _config(
    model_type: str, tokenizer: "PreTrainedTokenizerBase", sizes: dict[str, Any]
) -> "PreTrainedConfig":
    from transformers import AutoConfig

    usual = AutoConfig.for_model(model_type)
    tiny = {name: size for name, size in _SIZES.items() if hasattr(usual, name)}
    tokens = {
        f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id")
        for kind in ("pad", "bos", "eos", "cls", "sep")
        if hasattr(usual, f"{kind}_token_id")
    }
    given = {"vocab_size": len(tokenizer), **tokens, **tiny, **sizes}
    config: PreTrainedConfig = AutoConfig.for_model(model_type, **given)
    return config


def _byte_pairs(corpus: list[str], vocabulary: int) -> "PreTrainedTokenizerBase":
    """Train byte pairs with BERT's special tokens, as ModernBERT's tokenizer has them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    named = dict(zip(names, _SPECIAL, strict=True))
    kind: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerBase = kind(tokenizer_object=tokenizer, **named)
    return made
