"""``toxbench show``: one candidate, from stored results."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import toxbench
from toxbench.cli.main import main
from toxbench.records import CellKey
from toxbench.store.cells import find_store

Run = Callable[..., str]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    from support import write_table

    folder = tmp_path_factory.mktemp("show")
    table = write_table(folder / "t.csv")
    train = {"epochs": 2, "max_length": 16}
    for rate in (3e-5, 1e-3):
        toxbench.run(
            table, backbones=["bert"], adaptation=["full"], weights=f"bert={checkpoint}", seeds=2,
            train=train | {"learning_rate": rate}, split={"validation_size": 0.2},
            results=folder / "results",
        )  # fmt: skip
    store = find_store(folder / "results")
    key = CellKey(candidate="broken", digest="0" * 12, fold=0, seed=0)
    store.failures.write(key, "diverged", "the loss is \x1b[31mNaN")
    return folder / "results"


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str], results: Path) -> Run:
    def run(name: str, *words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(["show", name, str(results), *words])
        captured = capsys.readouterr()
        assert stop.value.code == 0, captured.err
        return captured.out

    return run


def test_backbone_report_has_every_table(show: Run, results: Path) -> None:
    report = json.loads(show("bert [learning_rate=0.001]", "--format", "json"))
    store = find_store(results)
    cells = [r for r in store.records() if r.settings and r.settings.learning_rate == 1e-3]
    assert [row["seed"] for row in report["cells"]["rows"]] == [0, 1]
    for row, cell in zip(report["cells"]["rows"], cells, strict=True):
        assert row["test micro-F1"] == cell.metrics["0.5"]["test"]["micro_f1"]
    settings = {row["setting"]: row for row in report["settings"]["rows"]}
    assert settings["learning_rate"]["value"] == 1e-3
    assert settings["epochs"]["default"] != "same"
    assert settings["batch_size"]["default"] == "same"
    curves = report["curves"]["rows"]
    assert [row["epoch"] for row in curves] == [1, 2]
    losses = [cell.epochs[1].train_loss for cell in cells]
    assert curves[1]["train loss"] == pytest.approx(sum(losses) / 2)
    labels = {row["label"]: row for row in report["labels"]["rows"]}
    assert labels["IsNever"] | {"F1": None, "positive test rows": 0} == labels["IsNever"]
    assert labels["IsRude"]["positive test rows"] == store.protocol().tested_supports["IsRude"]
    rules = {row["threshold rule"] for row in report["thresholds"]["rows"]}
    assert rules == {"0.5", "global", "accuracy", "per-label"}
    assert report["failures"]["rows"] == []


def test_a_baseline_has_no_curves(show: Run) -> None:
    text = show("tfidf-logreg")
    assert "Scores of each label on test rows" in text
    assert "Learning curves" not in text
    assert "Learning curves" in show("tfidf-logreg", "--table", "curves")


def test_failed_candidate_is_shown_with_reason(show: Run) -> None:
    text = show("broken")
    assert "diverged" in text
    assert "Not on the leaderboard" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["brt"], "no candidate is called 'brt'; did you mean 'bert'?"),
        (["bert"], "choose one of: 'bert [learning_rate=0.001]', 'bert [learning_rate=3e-05]'"),
        (["tfidf-logreg", "--format", "csv"], "csv holds one table; choose with --table"),
        (["tfidf-logreg", "--format", "xml"], "no format is called 'xml'"),
    ],
)
def test_unknown_names_are_refused(
    command: Callable[..., tuple[int, str]], results: Path, words: list[str], message: str
) -> None:
    code, err = command("show", words[0], str(results), *words[1:])
    assert (code, message in err) == (2, True), err
