"""Training and prediction with every built-in architecture, with and without optimizations."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, write_all
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from support import write_table
from torch import nn
from transformers import AutoModelForSequenceClassification

import toxbench
from toxbench import Backbone, TrainSettings
from toxbench.cli.main import main
from toxbench.data.protocol import Split
from toxbench.data.samples import sample_comments
from toxbench.data.tokenization import Tokens, tokenise
from toxbench.evaluation.early_stopping import epoch_scores
from toxbench.plugin.registry import Registry
from toxbench.training.device import choose_device, seeded
from toxbench.training.fast_dropout import PooledDropout
from toxbench.training.head import Head
from toxbench.training.parameters import TrimmedEmbedding, trim_embedding
from toxbench.training.trainer import NO_OPTIMIZATIONS, Optimizations, Trainer

pytestmark = pytest.mark.slow

ROWS, LABELS = 24, 3
SPLIT = Split(*np.split(np.arange(ROWS), [16, 20]))
REGISTRY = Registry.discover(only=[])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def backbone(name: str) -> Backbone:
    return REGISTRY.backbone(name).item


@pytest.fixture
def tokens(backbone: Backbone, folders: dict[str, Path], tmp_path: Path) -> Tokens:
    """Six short comments, repeated: most of the vocabulary is unused."""
    texts = [" ".join(text.split()[:9]) for text in sample_comments().texts[:6]] * (ROWS // 6)
    tokenizer = backbone.tokenizer(folders[backbone.name])
    return tokenise(tokenizer, backbone.name, texts, 128, tmp_path)


def make_trainer(
    module: nn.Module,
    backbone: Backbone,
    tokens: Tokens,
    optimizations: Optimizations = NO_OPTIMIZATIONS,
    **changes: object,
) -> Trainer:
    targets = np.random.default_rng(0).integers(0, 2, size=(ROWS, LABELS)).astype(np.uint8)
    values = {"epochs": 2, "batch_size": 8, "precision": "fp32", "dropout": 0.0, **changes}
    settings = TrainSettings.model_validate(values)
    device = choose_device("cpu", settings.precision)
    return Trainer(module, Head(backbone.head), tokens, targets, settings, device, optimizations)


def train_module(
    backbone: Backbone, folder: Path, tokens: Tokens, optimizations: Optimizations
) -> nn.Module:
    with seeded(0, choose_device("cpu")):
        module = backbone.build(folder, LABELS)
        trainer = make_trainer(module, backbone, tokens, optimizations, learning_rate=1e-3)
        trainer.train(SPLIT, 0, epoch_scores, lambda epoch: None)
    return module


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "minilm"])
def test_logits_equal_those_of_transformers(
    backbone: Backbone, folders: dict[str, Path], tokens: Tokens
) -> None:
    folder, rows = folders[backbone.name], np.arange(ROWS)
    module = backbone.build(folder, LABELS)
    plain = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=LABELS).eval()
    plain.load_state_dict(module.state_dict())
    probabilities = make_trainer(module, backbone, tokens).predict(rows)
    for row, (start, end) in enumerate(zip(tokens.offsets[:6], tokens.offsets[1:7], strict=True)):
        ids = torch.from_numpy(tokens.ids[start:end]).long()[None]
        logits = plain(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        np.testing.assert_allclose(probabilities[row], logits.sigmoid().detach(), atol=1e-5)
    wide = make_trainer(module, backbone, tokens, padding="max_length").predict(rows)
    np.testing.assert_allclose(wide, probabilities, atol=1e-5)
    half = make_trainer(module, backbone, tokens, precision="bf16").predict(rows)
    np.testing.assert_allclose(half, probabilities, atol=0.02)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_trimmed_embedding_learns_the_same(
    backbone: Backbone, folders: dict[str, Path], tokens: Tokens
) -> None:
    folder = folders[backbone.name]
    module = backbone.build(folder, LABELS)
    ids = torch.from_numpy(tokens.ids).long()
    with trim_embedding(module, torch.cat([ids, ids.new_tensor([tokens.pad_id])]), lambda: None):
        trimmed = [child for child in module.modules() if isinstance(child, TrimmedEmbedding)]
    assert len(trimmed) == 1
    plain = train_module(backbone, folder, tokens, NO_OPTIMIZATIONS)
    fast = train_module(backbone, folder, tokens, Optimizations())
    rows = np.arange(ROWS)
    values = [make_trainer(model, backbone, tokens).predict(rows) for model in (plain, fast)]
    np.testing.assert_allclose(*values, atol=1e-4)
    for (name, expected), actual in zip(plain.named_parameters(), fast.parameters(), strict=True):
        if expected.shape[0] != trimmed[0].row_of_id.shape[0]:
            torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("padding", ["bucket", "max_length"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_training_with_all_optimizations_stays_finite(
    backbone: Backbone, folders: dict[str, Path], tokens: Tokens, padding: str
) -> None:
    module = backbone.build(folders[backbone.name], LABELS)
    for part in module.modules():  # an attribute of ModernBERT, 0 by default
        if isinstance(getattr(part, "attention_dropout", None), float):
            part.attention_dropout = 0.1
    changes = {"dropout": 0.1, "precision": "bf16", "padding": padding, "layer_decay": 0.9}
    trainer = make_trainer(module, backbone, tokens, Optimizations(), **changes)
    result = trainer.train(SPLIT, 0, epoch_scores, lambda epoch: None)
    assert all(np.isfinite(epoch.train_loss) for epoch in result.epochs)


def test_fully_masked_positions_are_finite() -> None:
    query = torch.randn(1, 2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 0]]).bool()[None, None]
    additive = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
    for attention_mask in (mask, additive):
        with PooledDropout():
            attend = nn.functional.scaled_dot_product_attention
            output = attend(query, query, query, attention_mask, dropout_p=1e-4)
            assert torch.isfinite(output).all()


@pytest.mark.parametrize("name", ["bert", "minilm", "modernbert"])
def test_float16_weights_are_trained_in_float32(
    backbone: Backbone, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "half"
    shutil.copytree(folders[backbone.name], folder)
    half = {n: t.half() for n, t in load_file(folder / "model.safetensors").items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    module = backbone.build(folder, LABELS)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["deberta-v3"])
def test_tokenizer_is_read_from_sentencepiece(
    backbone: Backbone, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "as-on-the-hub"
    shutil.copytree(folders["deberta-v3"], folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    (tmp_path / "texts").write_text("\n".join(sample_comments().texts), encoding="utf-8")
    SentencePieceTrainer.train(
        input=str(tmp_path / "texts"), model_prefix=str(folder / "spm"), vocab_size=300,
        hard_vocab_limit=False, pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]",
        bos_piece="[CLS]", eos_piece="[SEP]", unk_piece="[UNK]", minloglevel=2,
    )  # fmt: skip
    text = "you are not good at all"
    pieces = SentencePieceProcessor(model_file=str(folder / "spm.model")).encode(text)
    tokenizer = backbone.tokenizer(folder)
    assert type(tokenizer).__name__ == "DebertaV2Tokenizer"
    assert tokenizer(text)["input_ids"] == [1, *pieces, 2]


def test_every_backbone_runs_to_the_leaderboard(folders: dict[str, Path], tmp_path: Path) -> None:
    names = list(ARCHITECTURES)
    bench = toxbench.run(
        write_table(tmp_path / "comments.csv"),
        backbones=names,
        baselines=["always-negative"],
        weights=[f"{name}={folder}" for name, folder in folders.items()],
        results=tmp_path / "results",
        train={"epochs": 1, "max_length": 32},
        workers=1,
    )
    board = bench.leaderboard
    assert set(names) < set(board["candidate"])
    assert board["micro_f1"].notna().all()


def test_plan_names_the_weights_of_every_backbone(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [word for n, folder in folders.items() for word in ("--weights", f"{n}={folder}")]
    table = str(write_table(tmp_path / "comments.csv"))
    words = ["run", "--data", table, "--backbones", ",".join(folders), "--dry-run", *options]
    with pytest.raises(SystemExit) as stop:
        main([*words, "--results", str(tmp_path / "results")])
    assert stop.value.code == 0
    plan = capsys.readouterr().err
    for name in folders:
        assert f"Candidate {name}: 1 cell" in plan
        assert f"from folder {name}@" in plan
    with pytest.raises(SystemExit):
        main(["backbones"])
    listed = capsys.readouterr().out
    assert [name for name in folders if f"\n{name} " not in listed] == []
