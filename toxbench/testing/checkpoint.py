"""Tiny random checkpoints of real architectures with real tokenizers, written without a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# Under the names of several architectures; each uses those that it has.
_SIZES = {
    "hidden_size": 16,
    "embedding_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "hidden_dim": 32,
    # The default of 128 tokens, plus the position offset of RoBERTa.
    "max_position_embeddings": 132,
}
_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_checkpoint(folder: Path, model_type: str, seed: int = 0, **sizes: Any) -> Path:
    """Write a tiny random checkpoint of an architecture, with a tokenizer of its class.

    It is an ordinary checkpoint: ``toxbench run --weights NAME=FOLDER`` works with it.

    Args:
        folder: created if it does not exist.
        model_type: from ``config.json`` of the real checkpoint, such as ``deberta-v2``.
        seed: of the weights.
        sizes: fields of the architecture's configuration that replace the tiny default sizes.

    Returns:
        the folder.

    Raises:
        ValueError: transformers has no such architecture.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(model_type)
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _pretraining_model(_tiny_config(model_type, tokenizer, sizes)).save_pretrained(folder)
    return folder


def train_tokenizer(
    model_type: str, texts: Sequence[str] | None = None, vocabulary: int = 400
) -> "PreTrainedTokenizerBase":
    """Train a small tokenizer of the class that belongs to an architecture.

    Args:
        model_type: as for `write_checkpoint`.
        texts: texts to learn the vocabulary from; None: toxbench's synthetic sample.
        vocabulary: maximum number of pieces; single characters are always included.
    """
    from transformers import AutoConfig, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING

    from toxbench.data.samples import sample_comments

    corpus = list(sample_comments().texts if texts is None else texts)
    mapping: Any = TOKENIZER_MAPPING
    kind = mapping.get(type(AutoConfig.for_model(model_type)), None)
    # The generic class does not define the split into tokens; ModernBERT's tokenizer.json does.
    if kind in {None, PreTrainedTokenizerFast} or not issubclass(kind, PreTrainedTokenizerFast):
        return _train_byte_pairs(corpus, vocabulary)
    tokenizer: PreTrainedTokenizerBase = kind().train_new_from_iterator(
        corpus, vocab_size=vocabulary, show_progress=False
    )
    return tokenizer


def _pretraining_model(config: "PreTrainedConfig") -> "PreTrainedModel":
    """Return a random model with the pretraining heads that real checkpoints contain."""
    from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForPreTraining

    kinds: tuple[Any, ...] = (AutoModelForPreTraining, AutoModelForMaskedLM)
    kind: Any = next((kind for kind in kinds if type(config) in kind._model_mapping), AutoModel)
    return cast("PreTrainedModel", kind.from_config(config))


def _tiny_config(
    model_type: str, tokenizer: "PreTrainedTokenizerBase", sizes: dict[str, Any]
) -> "PreTrainedConfig":
    from transformers import AutoConfig

    default = AutoConfig.for_model(model_type)
    tiny = {name: size for name, size in _SIZES.items() if hasattr(default, name)}
    tokens = {
        f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id")
        for kind in ("pad", "bos", "eos", "cls", "sep")
        if hasattr(default, f"{kind}_token_id")
    }
    values = {"vocab_size": len(tokenizer), **tokens, **tiny, **sizes}
    return AutoConfig.for_model(model_type, **values)


def _train_byte_pairs(corpus: list[str], vocabulary: int) -> "PreTrainedTokenizerBase":
    """Train a byte-pair tokenizer with BERT's special tokens, like ModernBERT's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(_SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    special_tokens = dict(zip(names, _SPECIAL_TOKENS, strict=True))
    kind: Any = PreTrainedTokenizerFast
    fast_tokenizer: PreTrainedTokenizerBase = kind(tokenizer_object=tokenizer, **special_tokens)
    return fast_tokenizer
