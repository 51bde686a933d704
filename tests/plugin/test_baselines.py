"""Baselines: their context, settings, weights and seeds, and the built-in ones on request."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plugin_site import write_plugin
from toxbench_plugins.zero_shot import words_of

import toxbench
from toxbench import Baseline, PluginError, SettingsError, fit_logistic_regression
from toxbench.ranking.build import load_leaderboard
from toxbench.store.cells import find_store
from toxbench.testing import write_checkpoint

Cli = Callable[..., subprocess.CompletedProcess[str]]
NOISE = """
import json
import numpy as np
from pathlib import Path
from toxbench import BaselineSettings

class NoiseSettings(BaselineSettings):
    level: float = 0.5

def fit(texts, targets, context):
    context.cache.mkdir(parents=True, exist_ok=True)
    content = {"labels": context.labels, "level": context.settings.level}
    (context.cache / f"{context.seed}.json").write_text(json.dumps(content))
    noise = np.random.default_rng(context.seed)
    return lambda texts: context.settings.level * noise.random((len(texts), len(context.labels)))

@hookimpl
def toxbench_baselines():
    return [Baseline(name="noise", fit=fit, settings=NoiseSettings, stochastic=True)]
"""
OLD = """
@hookimpl
def toxbench_baselines():
    return [Baseline(name="old", fit=lambda texts, targets: print)]
"""


@pytest.fixture(scope="module")
def entailment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint whose outputs have the names of natural language inference."""
    folder = write_checkpoint(tmp_path_factory.mktemp("nli") / "tiny-nli", "bert")
    config = json.loads((folder / "config.json").read_text())
    names = {"0": "CONTRADICTION", "1": "NEUTRAL", "2": "ENTAILMENT"}
    config |= {"id2label": names, "label2id": {name: int(n) for n, name in names.items()}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def run(table: Path, tmp_path: Path) -> Callable[..., Any]:
    """Run baselines on a small table, with tables of a config file."""

    def call(*baselines: str, **tables: dict[str, Any]) -> Any:
        lines = [
            f"[baseline.{name}]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in table.items())
            for name, table in tables.items()
        ]
        (tmp_path / "config.toml").write_text("\n".join(lines))
        return toxbench.run(
            table, backbones=[], baselines=list(baselines), results=tmp_path / "results",
            config=tmp_path / "config.toml", progress=False,
        )  # fmt: skip

    return call


@pytest.mark.slow
def test_context_reaches_a_stochastic_baseline(cli: Cli, table: Path, tmp_path: Path) -> None:
    write_plugin(tmp_path / "site", "noise", NOISE)
    (tmp_path / "config.toml").write_text("[baseline.noise]\nlevel = 0.25\n")
    result = cli(
        "run", "--data", str(table), "--backbones", "none", "--baselines", "noise", "--seeds", "2",
        "--config", "config.toml", PYTHONPATH=str(tmp_path / "site"),
        TOXBENCH_CACHE=str(tmp_path / "cache"),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    contexts = sorted((tmp_path / "cache" / "baselines" / "noise").iterdir())
    assert [path.name for path in contexts] == ["0.json", "1.json"]
    expected = {"labels": ["IsRude", "IsLong", "IsNever"], "level": 0.25}
    assert [json.loads(path.read_text()) for path in contexts] == [expected] * 2
    records = find_store(tmp_path / "results").records()
    assert [(r.key.seed, r.kind, r.stochastic) for r in records] == [
        (0, "baseline", True), (1, "baseline", True),
    ]  # fmt: skip
    assert len({r.metrics["0.5"]["test"]["micro_average_precision"] for r in records}) == 2
    assert load_leaderboard(find_store(tmp_path / "results")).is_exploratory
    shown = cli("show", "noise", "--table", "settings").stdout
    assert "level" in shown
    assert "0.25" in shown


def test_fit_without_context_is_refused_in_one_line(cli: Cli, tmp_path: Path) -> None:
    write_plugin(tmp_path / "site", "old", OLD)
    result = cli(
        "run", "--backbones", "none", "--baselines", "old", PYTHONPATH=str(tmp_path / "site")
    )
    assert result.returncode == 4
    error = result.stderr.strip().splitlines()[-1]
    assert error.startswith("toxbench: error: ")
    assert "fit(texts, targets, context)" in error
    with pytest.raises(PluginError, match="'old'"):
        Baseline(name="old", fit=lambda texts, targets: None)  # type: ignore[arg-type, misc]


def test_changed_setting_is_another_candidate(
    run: Callable[..., Any], entailment: Path, tmp_path: Path
) -> None:
    first = {"model": str(entailment)}
    run("zero-shot", **{"zero-shot": first})
    run("zero-shot", **{"zero-shot": first})
    store = find_store(tmp_path / "results")
    assert len(store.records()) == 1
    run("zero-shot", **{"zero-shot": first | {"hypothesis": "It is {}."}})
    records = store.records()
    assert {r.baseline_settings["hypothesis"] for r in records} == {
        "This comment is {}.", "It is {}.",
    }  # fmt: skip
    assert len({r.metrics["0.5"]["train"]["brier"] for r in records}) == 2
    assert all("model" not in r.baseline_settings for r in records)
    assert {r.weights and r.weights.source for r in records} == {"local"}
    config = entailment / "config.json"
    content = config.read_text()
    config.write_text(content + "\n")
    run("zero-shot", **{"zero-shot": first})
    config.write_text(content)
    assert len(store.records()) == 3  # other weights


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("zero-shot", {"modl": "x"}, "did you mean 'model'"),
        ("zero-shot", {"batch_size": "long"}, "setting batch_size = "),
        ("zero-shot", {}, r"set \[baseline.zero-shot\] model"),
        ("zero-shot", {"model": "./nowhere"}, r"\[baseline.zero-shot\] model"),
        ("tfidf-logreg", {"C": 1}, "unknown setting 'C'"),
        ("tfidf-logre", {"C": 1}, "did you mean 'tfidf-logreg'"),
    ],
)
def test_impossible_settings_are_refused_before_training(
    run: Callable[..., Any], tmp_path: Path, name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as error:
        run("zero-shot" if name == "zero-shot" else "tfidf-logreg", **{name: settings})
    assert error.value.exit_code == 2
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("IsToxic", "toxic"), ("IsHateSpeech", "hate speech"), ("severe_toxic", "severe toxic"),
        ("toxic", "toxic"), ("Is", "is"), ("ТОКСИЧНО", "токсично"), ("--", "--"),
    ],
)  # fmt: skip
def test_label_names_become_words(label: str, words: str) -> None:
    assert words_of(label) == words


def test_missing_package_is_named(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toxbench.benchmark.validate.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r'pip install "toxbench\[embeddings\]"'):
        run("embeddings")


def test_baselines_on_request_are_not_scored_by_default(cli: Cli, table: Path) -> None:
    result = cli("run", "--data", str(table), "--backbones", "none", "--dry-run")
    assert result.returncode == 0, result.stderr
    candidates = [w.split()[1] for w in result.stderr.splitlines() if w.startswith("Candidate")]
    candidates += [w.split()[1] for w in result.stdout.splitlines() if w.startswith("Candidate")]
    assert candidates == ["always-negative:", "tfidf-logreg:"]


@pytest.mark.slow
def test_embeddings_learn(run: Callable[..., Any], checkpoint: Path, tmp_path: Path) -> None:
    """A random encoder is enough for a label that one word determines."""
    pytest.importorskip("sentence_transformers", reason="needs the extra embeddings")
    run("embeddings", "always-negative", embeddings={"model": str(checkpoint), "C": 1000})
    scores = {
        r.key.candidate: r.metrics["0.5"]["test"]["micro_f1"]
        for r in find_store(tmp_path / "results").records()
    }
    assert (scores["embeddings"] or 0) > (scores["always-negative"] or 0) + 0.3


@pytest.mark.slow
def test_setfit_trains_the_encoder(
    run: Callable[..., Any], checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip("setfit", reason="needs the extra setfit")
    for learning_rate in (1e-9, 1e-3):
        run("setfit", setfit={"model": str(checkpoint), "steps": 2, "learning_rate": learning_rate})
    first, second = (
        r.metrics["0.5"]["train"]["brier"] for r in find_store(tmp_path / "results").records()
    )
    assert first != second


def test_model2vec_learns(run: Callable[..., Any], checkpoint: Path, tmp_path: Path) -> None:
    model2vec = pytest.importorskip("model2vec", reason="needs the extra model2vec")
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    vectors = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 16))
    model = model2vec.StaticModel(vectors.astype(np.float32), tokenizer)
    model.save_pretrained(tmp_path / "static")
    run("model2vec", model2vec={"model": str(tmp_path / "static"), "C": 1000})
    (record,) = find_store(tmp_path / "results").records()
    assert (record.metrics["0.5"]["test"]["micro_f1"] or 0) > 0.3


def test_regression_ignores_unlabelled_rows() -> None:
    rng = np.random.default_rng(0)
    features, labelled = rng.normal(size=(60, 3)), rng.random((60, 2)) < 0.5
    targets = ((features[:, :2] > 0) & labelled).astype(np.uint8)
    probabilities = fit_logistic_regression(features, targets, 1.0, labelled)(features)
    for i in (0, 1):
        rows = labelled[:, i]
        alone = fit_logistic_regression(features[rows], targets[rows][:, [i]], 1.0)(features)
        np.testing.assert_array_equal(probabilities[:, i], alone[:, 0])
