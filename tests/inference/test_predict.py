"""Predictions of stored models, for comments in memory and in files of each format."""

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from plugin_site import install_plugin
from safetensors.numpy import load_file
from support import write_checkpoint, write_table

import toxbench
from toxbench.errors import DataError, PluginError, SettingsError, StorageError
from toxbench.evaluation.thresholds import calibrate, choose_thresholds
from toxbench.inference.tables import CommentsFile
from toxbench.settings import ColumnSettings
from toxbench.store.cells import find_store
from toxbench.store.files import read_cell

pytestmark = pytest.mark.slow

SETTINGS = {"epochs": 1, "max_length": 16, "learning_rate": 1e-3, "precision": "fp32"}
Command = Callable[..., tuple[int, str]]
LABELS = ["IsRude", "IsLong", "IsNever"]
PROBABILITIES = [f"{label}_probability" for label in LABELS]


def test_a_stored_model_repeats_its_test_predictions(trained: Path, results: Path) -> None:
    store = find_store(results)
    texts = pd.read_csv(trained / "comments.csv")["text"]
    test = texts[list(store.protocol().folds[0].test)].tolist()
    for record in store.models.records():
        predictions = toxbench.predict(results, test, backbone=record.key.candidate)
        assert list(predictions.columns) == [*LABELS, *PROBABILITIES]
        exact = load_file(store.models.path(record.key) / "probabilities.safetensors")["test"]
        calibrated = calibrate(exact, record.calibration)
        np.testing.assert_allclose(predictions[PROBABILITIES].to_numpy(), calibrated, atol=1e-6)
        assert (predictions[LABELS].to_numpy() == (exact > 0.5)).all()
        thresholds = np.array(read_cell(store.path(record.key))[0].thresholds["per-label"])
        by_label = toxbench.predict(
            results, test, backbone=record.key.candidate, thresholds="per-label"
        )
        is_clear = np.abs(exact - thresholds) > 1e-6  # the conversion of thresholds rounds
        assert (by_label[LABELS].to_numpy() == (exact > thresholds))[is_clear].all()
        assert is_clear.mean() > 0.5


def test_best_validation_model_is_the_default(results: Path) -> None:
    best = find_store(results).models.records()[0]
    default = toxbench.predict(results, ["you fool"])
    by_name = toxbench.predict(results, ["you fool"], backbone=best.key.candidate)
    pd.testing.assert_frame_equal(default, by_name)
    for record in find_store(results).models.records()[1:]:
        predictions = toxbench.predict(results, ["you fool"], backbone=record.key.candidate)
        assert not predictions.equals(default)


@pytest.mark.parametrize(
    ("comments", "options", "message"),
    [
        (["fine", " "], {}, "comment 2 is empty"),
        (["\ud800"], {}, "comment 1 is not valid UTF-8"),
        ("one text", {}, "a list of texts"),
        (["x"], {"backbone": "brt"}, "did you mean 'bert'"),
        (["x"], {"backbone": "always-negative"}, "a baseline has no model"),
        (["x"], {"thresholds": "best"}, "has only 0.5, global, accuracy, per-label"),
    ],
)
def test_invalid_arguments_of_predict_are_refused(
    results: Path, comments: list[str], options: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        toxbench.predict(results, comments, **options)  # type: ignore[arg-type]


def test_comments_are_predicted_on_the_command_line(
    trained: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("predict", "--results", str(trained / "results"), "--backbone", "bert")
    code, output = run_and_read(command, capsys, *words, "you fool", "=SUM(1) \x1b[31m")
    assert code == 0
    assert "SUM" not in output
    rows = [line for line in output.splitlines() if line.startswith(("1 ", "2 "))]
    assert [row.split()[1] for row in rows] == [*LABELS, *LABELS]
    code, output = run_and_read(command, capsys, *words, "you fool", "--format", "json")
    expected = toxbench.predict(trained / "results", ["you fool"], backbone="bert")
    records = json.loads(output)["rows"]
    probabilities = expected[PROBABILITIES].to_numpy()[0].tolist()
    assert [record["probability"] for record in records] == probabilities
    assert [record["predicted"] for record in records] == expected[LABELS].to_numpy()[0].tolist()


def run_and_read(
    command: Command, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    from toxbench.cli.main import main

    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert isinstance(stop.value.code, int)
    return stop.value.code, capsys.readouterr().out


ROWS = [("a", "you fool"), ("=b", "thank you"), ("", "again " * 300), ("@d", '"quoted",\nyou')]


def write_input(path: Path) -> Path:
    frame = pd.DataFrame(ROWS, columns=["CommentId", "Text"]) if path.suffix != ".jsonl" else None
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)  # type: ignore[union-attr]
    elif path.suffix == ".tsv":
        frame.to_csv(path, index=False, sep="\t")  # type: ignore[union-attr]
    elif path.suffix == ".parquet":
        frame.to_parquet(path)  # type: ignore[union-attr]
    else:
        lines = [json.dumps({"CommentId": i, "Text": t}) for i, t in ROWS]
        path.write_text("\n".join(lines), encoding="utf-8")
    return path


def read_output(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".jsonl":
        return pd.DataFrame([json.loads(line) for line in path.read_text("utf-8").splitlines()])
    return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", keep_default_na=False)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_files_of_each_format_are_predicted(
    results: Path, command: Command, tmp_path: Path, kind: str
) -> None:
    source, target = write_input(tmp_path / f"in.{kind}"), tmp_path / f"out.{kind}"
    words = ("predict", "--results", str(results), "--input", str(source), "--output", str(target))
    assert command(*words) == (0, "")
    output = read_output(target)
    expected = toxbench.predict(results, [text for _, text in ROWS])
    assert list(output.columns) == ["CommentId", *LABELS, *PROBABILITIES]
    np.testing.assert_allclose(output[PROBABILITIES], expected[PROBABILITIES], atol=1e-6)
    assert (output[LABELS].to_numpy() == expected[LABELS].to_numpy()).all()
    quoted = ["a", "'=b", "", "'@d"] if kind in {"csv", "tsv"} else ["a", "=b", "", "@d"]
    assert output["CommentId"].tolist() == quoted
    assert b"again again" not in target.read_bytes()
    assert command(*words, "--with-text")[0] == 0
    assert read_output(target)["Text"].tolist() == [text for _, text in ROWS]
    assert {path.name for path in tmp_path.iterdir()} == {source.name, target.name}


def test_several_blocks_form_one_file(results: Path, command: Command, tmp_path: Path) -> None:
    count = 5000
    texts = [f"{'you ' * (row % 7)}fool {row % 11}" for row in range(count)]
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    pd.DataFrame({"text": texts}).to_csv(source, index=False)
    words = ("predict", "--results", str(results), "--input", str(source), "--output", str(target))
    assert command(*words)[0] == 0
    output = pd.read_csv(target)
    assert output["row"].tolist() == list(range(1, count + 1))
    unique = sorted(set(texts))
    rows = toxbench.predict(results, unique)
    expected = rows[PROBABILITIES].set_axis(unique).loc[texts]
    np.testing.assert_allclose(output[PROBABILITIES], expected, atol=1e-6)


def test_lines_of_standard_input_are_predicted(
    results: Path, command: Command, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    class Stdin:
        buffer = io.BytesIO("you fool\r\n\n  \nschön\n".encode())

    monkeypatch.setattr("sys.stdin", Stdin())
    words = ("predict", "--results", str(results), "--input", "-")
    code, output = run_and_read(command, capsys, *words)
    rows = list(csv.reader(output.splitlines()))
    assert code == 0
    assert [row[0] for row in rows] == ["line", "1", "4"]
    expected = toxbench.predict(results, ["you fool", "schön"])
    probabilities = np.array([row[4:] for row in rows[1:]], dtype=float)
    np.testing.assert_allclose(probabilities, expected[PROBABILITIES], atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('text\nfine\n" "\n', "row 2, column 'text': the text is empty"),
        ("words\nfine\n", "found no text column among 'words'"),
        ("text\n", "no rows below the header"),
        ("", "the file is empty"),
        ("text,b\nfine,1\nshort\n", "row 2 .* has 1 fields"),
    ],
)
def test_an_invalid_file_is_refused_before_prediction(
    results: Path, command: Command, tmp_path: Path, content: str, message: str
) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        CommentsFile(source, ColumnSettings()).count()
    words = ("predict", "--results", str(results), "--input", str(source), "--output", str(target))
    code, error = command(*words)
    assert (code, error.count("toxbench: error: ")) == (3, 1)
    assert not target.exists()


def test_rows_without_text_can_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a", "id": "x"}\n{"id": "y"}\n{"text": " "}\n{"text": "b"}\n')
    file = CommentsFile(path, ColumnSettings(drop_empty=True))
    assert file.count() == 2
    (block,) = file.blocks()
    assert (block.ids, block.texts) == (["x", ""], ["a", "b"])
    with pytest.raises(DataError, match=r"row 2, .*\n.*row 3"):
        CommentsFile(path, ColumnSettings()).count()


def test_invalid_outputs_are_refused(results: Path, command: Command, tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.csv")
    options = ("predict", "--results", str(results), "--input", str(source))
    content = source.read_bytes()
    (tmp_path / "folder.csv").mkdir()
    for target, reason in (
        (source, "is the file of --input"),
        (tmp_path / "out.txt", "unknown kind of file"),
        (tmp_path / "folder.csv", "is not a file"),
        (Path("/dev/null"), "unknown kind of file"),
    ):
        code, error = command(*options, "--output", str(target))
        assert (code, reason in error) == (2, True), error
    assert source.read_bytes() == content
    for words in (
        ("x", "--input", str(source)),
        (),
        ("x", "--with-text"),
        ("x", "--output", "o.csv"),
    ):
        assert command("predict", "--results", str(results), *words)[0] == 2


@pytest.mark.faults(34)
def test_a_full_disk_leaves_no_output(results: Path, tmp_path: Path, forks: object) -> None:
    source = tmp_path / "in.csv"
    pd.DataFrame({"text": ["you fool"] * 3000}).to_csv(source, index=False)
    target = tmp_path / "out.csv"
    ended = forks.run(  # type: ignore[attr-defined]
        "predict", "--results", str(results), "--input", str(source), "--output", str(target),
        bytes_a_file=50_000,
    )  # fmt: skip
    assert (ended.code, "make room" in ended.error) == (6, True)
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv"}


def test_average_is_the_mean_of_all_seeds(
    tmp_path: Path, checkpoint: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "comments.csv", 80)
    toxbench.run(
        table, backbones=["bert"], baselines=[], weights=f"bert={checkpoint}", workers=1,
        seeds=3, train=SETTINGS | {"head_init": "random"}, results=tmp_path / "results",
        save_models="all", split={"validation_size": 0.25},
    )  # fmt: skip
    store = find_store(tmp_path / "results")
    rows, fold = store.rows(), store.protocol().folds[0]
    test = pd.read_csv(table)["text"][list(fold.test)].tolist()
    records = {record.key.stem: record for record in store.models.records()}
    exact = [
        calibrate(load_file(p / "probabilities.safetensors")["test"], records[p.name].calibration)
        for p in store.models.paths()
    ]
    validation = np.mean([calibrate(parts["validation"], record.calibration)
                          for record, parts in store.cells()], axis=0)  # fmt: skip
    thresholds = choose_thresholds(
        rows.targets[list(fold.validation)], validation.astype(np.float32)
    )
    for rule, values in thresholds.items():
        predictions = toxbench.predict(store.folder, test, average=True, thresholds=rule)
        average = predictions[PROBABILITIES].to_numpy()
        np.testing.assert_allclose(average, np.mean(exact, axis=0), atol=1e-6)
        assert (predictions[LABELS].to_numpy() == (average > np.array(values))).all()
    single = toxbench.predict(store.folder, test)[PROBABILITIES].to_numpy()
    assert not np.allclose(single, np.mean(exact, axis=0), atol=1e-4)
    words = ("predict", "--results", str(store.folder), "--average", "you fool", "--format", "json")
    records = json.loads(run_and_read(command, capsys, *words)[1])["rows"]
    expected = toxbench.predict(store.folder, ["you fool"], average=True)[PROBABILITIES]
    assert [record["probability"] for record in records] == expected.to_numpy()[0].tolist()


def test_an_average_needs_several_models(results: Path, command: Command) -> None:
    words = ("predict", "--results", str(results), "--backbone", "bert", "--average", "hello")
    code, error = command(*words)
    assert (code, "only one model of bert" in error) == (6, True)


def test_damaged_and_missing_models_are_refused(
    trained: Path, command: Command, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(trained / "results", results)
    store = find_store(results)
    folder = next(p for p in store.models.paths() if p.name.startswith("bert-"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    predict = ("predict", "--results", str(results), "hello", "--backbone")
    code, error = command(*predict, "bert")
    assert code == 6
    assert "model.safetensors has a wrong checksum; remove it and its cell" in error
    assert command(*predict, "distilbert")[0] == 0  # the damage affects only bert
    shutil.rmtree(folder)
    with pytest.raises(StorageError, match=r"remove \S*cells/bert-\S* and start the same toxbench"):
        toxbench.predict(results, ["hello"], backbone="bert")
    with pytest.raises(StorageError, match="holds no results yet"):
        toxbench.predict(tmp_path / "nowhere", ["hello"])


BAG_PLUGIN = """
import json
import torch
from toxbench import Backbone, hookimpl

class Bag(torch.nn.Module):
    def __init__(self, size, words, labels):
        super().__init__()
        self.words = torch.nn.Embedding(words, size)
        self.head = torch.nn.Linear(size, labels)
        self.tied = self.head  # tensors that two names share

    def forward(self, input_ids, attention_mask):
        mask = attention_mask[..., None].float()
        return self.head((self.words(input_ids) * mask).sum(1) / mask.sum(1))

class BagBackbone(Backbone):
    def build(self, weights, label_count):
        config = json.loads((weights / "config.json").read_text())
        return Bag(config["hidden_size"], config["vocab_size"], label_count)

@hookimpl
def toxbench_backbones():
    return [BagBackbone(name="bag", checkpoint="a/b")]
"""


def test_plugin_without_transformers_class_is_refused(
    tmp_path: Path, cli: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch, command: Command,
) -> None:  # fmt: skip
    """Prediction works, because the plugin builds the module."""
    install_plugin(tmp_path / "site", "bag-dist", bag=BAG_PLUGIN)
    checkpoint = write_checkpoint(tmp_path / "tiny")
    table = write_table(tmp_path / "comments.csv")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    toxbench.run(
        table, backbones=["bag"], baselines=[], weights=f"bag={checkpoint}", workers=1,
        train={"epochs": 1, "max_length": 16}, results=tmp_path / "results",
    )  # fmt: skip
    assert len(toxbench.predict(tmp_path / "results", ["you fool"])) == 1
    code, error = command("export", str(tmp_path / "out"))
    assert code == 4
    assert "Bag" in error
    assert "predict works" in error
    assert not (tmp_path / "out").exists()
    with pytest.raises(PluginError, match=r"'bag' of bag-dist 1.0 .*, which is not .*bag-dist"):
        toxbench.predict(tmp_path / "results", ["you fool"], plugins=[])
