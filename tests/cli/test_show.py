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
            table, backbones=["bert"], weights=f"bert={checkpoint}", seeds=2,
            train=train | {"learning_rate": rate}, split={"validation_size": 0.2},
            results=folder / "results",
        )  # fmt: skip
    store = find_store(folder / "results")
    key = CellKey(candidate="broken", digest="0" * 12, fold=0, seed=0)
    store.failures.write(key, "diverged", "the loss is \x1b[31mNaN")
    return folder / "results"


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], results: Path) -> Run:
    def run(name: str, *words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(["show", name, str(results), *words])
        captured = capsys.readouterr()
        assert stop.value.code == 0, captured.err
        return captured.out

    return run


def test_everything_about_a_backbone(shown: Run, results: Path) -> None:
    said = json.loads(shown("bert [learning_rate=0.001]", "--format", "json"))
    store = find_store(results)
    cells = [r for r in store.records() if r.settings and r.settings.learning_rate == 1e-3]
    assert [row["seed"] for row in said["cells"]["rows"]] == [0, 1]
    for row, cell in zip(said["cells"]["rows"], cells, strict=True):
        assert row["test micro-F1"] == cell.metrics["0.5"]["test"]["micro_f1"]
    settings = {row["setting"]: row for row in said["settings"]["rows"]}
    assert settings["learning_rate"]["value"] == 1e-3
    assert settings["epochs"]["default"] != "same"
    assert settings["batch_size"]["default"] == "same"
    curves = said["curves"]["rows"]
    assert [row["epoch"] for row in curves] == [1, 2]
    losses = [cell.epochs[1].train_loss for cell in cells]
    assert curves[1]["train loss"] == pytest.approx(sum(losses) / 2)
    labels = {row["label"]: row for row in said["labels"]["rows"]}
    assert labels["IsNever"] | {"F1": None, "positive test rows": 0} == labels["IsNever"]
    assert labels["IsRude"]["positive test rows"] == store.protocol().tested_supports["IsRude"]
    rules = {row["threshold rule"] for row in said["thresholds"]["rows"]}
    assert rules == {"0.5", "global", "per-label"}
    assert said["failures"]["rows"] == []


def test_a_baseline_has_no_curves(shown: Run) -> None:
    text = shown("tfidf-logreg")
    assert "Scores of each label on test rows" in text
    assert "Learning curves" not in text
    assert "Learning curves" in shown("tfidf-logreg", "--table", "curves")


def test_what_only_failed_is_shown_with_the_reason(shown: Run) -> None:
    text = shown("broken")
    assert "diverged" in text
    assert "Not on the leaderboard" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["brt"], "no candidate is called 'brt'; did you mean 'bert'?"),
        (["bert"], "choose one of: 'bert [learning_rate=0.001]', 'bert [learning_rate=3e-05]'"),
        (["tfidf-logreg", "--format", "csv"], "csv holds one table; choose with --table"),
        (["tfidf-logreg", "--format", "xml"], "no format is called 'xml'"),
    ],
)
def test_a_name_that_is_none_is_refused(
    command: Callable[..., tuple[int, str]], results: Path, words: list[str], says: str
) -> None:
    code, err = command("show", words[0], str(results), *words[1:])
    assert (code, says in err) == (2, True), err
