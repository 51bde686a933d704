"""What the Python functions return: numbers, pages, figures and predictions of stored results."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from support import write_table

import toxbench

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> toxbench.Bench:
    folder = tmp_path_factory.mktemp("bench")
    return toxbench.run(
        write_table(folder / "comments.csv"), backbones=["bert"], adaptation=["full"], seeds=2,
        weights=f"bert={checkpoint}", results=folder / "results", workers=1,
        train={"epochs": 2, "max_length": 32, "learning_rate": 1e-3}, split={"folds": 2},
    )  # fmt: skip


def test_loaded_results_equal_those_of_the_run(bench: toxbench.Bench) -> None:
    loaded = toxbench.load(bench.folder.parent)
    pd.testing.assert_frame_equal(loaded.leaderboard, bench.leaderboard)
    assert repr(loaded) == repr(bench)
    assert set(bench.leaderboard["name"]) == set(bench.cells["candidate"])


def test_bench_can_be_used_as_its_leaderboard(bench: toxbench.Bench) -> None:
    board = bench.leaderboard
    assert bench["micro_f1"].equals(board["micro_f1"])
    assert bench.set_index("name").equals(board.set_index("name"))
    assert (len(bench), list(bench)) == (len(board), list(board))
    with pytest.raises(AttributeError):
        _ = bench.no_such_attribute


def test_headline_scores_are_the_first_columns(bench: toxbench.Bench) -> None:
    first = ["name", "rank", "micro_f1", "subset_accuracy", "micro_f1_gap", "subset_accuracy_gap"]
    assert list(bench.leaderboard)[:6] == first


def test_comparison_without_tests_gives_the_reason(tmp_path: Path) -> None:
    table = write_table(tmp_path / "comments.csv", rows=40)
    frame = pd.read_csv(table).assign(group=lambda rows: rows.index % 2)
    bench = toxbench.run(frame, backbones=[], results=tmp_path / "results", progress=False)
    with pytest.raises(toxbench.DataError, match=r"no pair of these .* belong to 2 groups"):
        bench.compare()


def test_predictions_give_the_scores_of_the_cells(bench: toxbench.Bench) -> None:
    for part in ("train", "test"):
        predictions = bench.predictions("bert", part)
        cells = bench.cells.query("candidate == 'bert' and part == @part and metric == 'micro_f1'")
        assert set(cells["seed"]) == set(cells["fold"]) == {0, 1}
        for cell in cells.itertuples():
            own = predictions.query("seed == @cell.seed and fold == @cell.fold")
            assert f1_score(own["target"], own["predicted"], zero_division=0) == cell.value


def test_unlabelled_entries_are_left_out(checkpoint: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(write_table(tmp_path / "comments.csv")).drop(columns="IsNever")
    frame.loc[frame.index % 3 == 0, "IsLong"] = -1
    bench = toxbench.run(
        frame, backbones=["bert"], adaptation=["full"], weights=f"bert={checkpoint}",
        columns={"unlabelled": ["-1"]}, train={"epochs": 1, "max_length": 32},
        results=tmp_path / "results",
    )  # fmt: skip
    for name in ("bert", "tfidf-logreg"):
        shown = bench.predictions(name)
        known = frame.set_index("id").rename_axis(columns="label").stack()
        known = known.drop("text", level=1)[lambda values: values != -1]
        tested = known[known.index.get_level_values("id").isin(shown["id"])]
        assert shown.set_index(["id", "label"])["target"].to_dict() == tested.to_dict()
        scores = bench.cells.query("candidate == @name and part == 'test'").set_index("metric")
        assert scores["value"]["micro_f1"] == f1_score(shown["target"], shown["predicted"])
        assert scores["value"]["brier"] == pytest.approx(
            ((shown["probability"] - shown["target"]) ** 2).mean()
        )
        assert bench.confusion(name).set_index("label").sum(axis=1).to_dict() == (
            shown["label"].value_counts().to_dict()
        )


def test_predictions_use_the_thresholds_of_a_rule(bench: toxbench.Bench) -> None:
    predictions = bench.predictions("bert", thresholds="global")
    by_fold = predictions.groupby(["seed", "fold"])
    highest_no = by_fold.apply(lambda f: f.probability[f.predicted == 0].max())
    lowest_yes = by_fold.apply(lambda f: f.probability[f.predicted == 1].min())
    assert (highest_no.fillna(0) < lowest_yes.fillna(1)).all()
    assert not predictions["predicted"].equals(bench.predictions("bert")["predicted"])


def test_parquet_holds_the_cells(bench: toxbench.Bench) -> None:
    stored = pd.read_parquet(bench.folder / "cells.parquet")
    pd.testing.assert_frame_equal(stored, bench.cells, check_dtype=False)
    assert list(stored) == ["candidate", "seed", "fold", "part", "metric", "value"]


def test_labels_and_confusion_agree(bench: toxbench.Bench) -> None:
    confusion = bench.confusion("tfidf-logreg").set_index("label")
    labels = bench.labels.query("candidate == 'tfidf-logreg'").set_index("label")
    positives = confusion["true_positives"] + confusion["false_negatives"]
    np.testing.assert_array_equal(labels["support"], positives)
    assert (confusion.sum(axis=1) == 60).all()
    assert labels.loc["IsNever"].isna().sum() == 8
    assert (labels["f1_low"] <= labels["f1_high"]).tolist() == [True, True, False]


def test_html_has_the_verdict_below_the_intervals(bench: toxbench.Bench) -> None:
    page = bench._repr_html_()
    interval, verdict = page.index("[0."), page.index("Exploratory")
    assert page.index("tfidf-logreg") < interval < verdict
    assert "<body" not in page
    assert ".toxbench td" in page


def test_figures_can_be_changed_and_are_shown(bench: toxbench.Bench, tmp_path: Path) -> None:
    plots = bench.plot()
    assert list(plots) == ["forest", "gap", "cost", "learning"]
    plots["forest"].savefig(tmp_path / "forest.png")
    page = plots._repr_html_()
    assert page.count("data:image/svg+xml") == 4
    assert page.index("Baselines are grey") < page.index("Pareto front")


def test_report_is_written_and_shown_in_a_frame(bench: toxbench.Bench) -> None:
    report = bench.report()
    assert Path(report) == bench.folder / "report.html"
    assert "&lt;!DOCTYPE html&gt;" in report._repr_html_()
    assert bench.predict(["you fool"]).shape == (1, 6)


def test_averages_are_candidates(bench: toxbench.Bench) -> None:
    averages = toxbench.load(bench.folder, ensembles=True)
    name = averages.leaderboard.query("kind == 'ensemble'")["candidate"].iloc[0]
    assert len(averages.predictions(name)) == 60 * 3
    assert name in set(averages.compare()["first"]) | set(averages.compare()["second"])


@pytest.mark.parametrize("table", ["missed", "disagree", "labels"])
def test_errors_are_limited(bench: toxbench.Bench, table: str) -> None:
    frame = bench.errors(table, limit=2)
    assert len(frame) <= 2
    assert frame.columns[0] == "id"


def test_unknown_names_are_refused_with_a_suggestion(bench: toxbench.Bench) -> None:
    for call in (
        lambda: bench.predictions("bret"),
        lambda: bench.confusion("bret"),
        lambda: bench.predictions("bert", part="tets"),  # type: ignore[arg-type]
        lambda: bench.errors("lables"),
    ):
        with pytest.raises(toxbench.SettingsError, match="did you mean"):
            call()


def test_api_logs_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="toxbench")
    table = write_table(tmp_path / "comments.csv")
    toxbench.run(table, backbones=[], results=tmp_path / "results", progress=False)
    assert capfd.readouterr() == ("", "")
    levels = {(record.name, record.levelname) for record in caplog.records}
    assert levels == {("toxbench", name) for name in ("DEBUG", "INFO", "WARNING")}
    assert "no positive row, nothing to learn or score: IsNever" in caplog.messages
    assert any("tfidf-logreg seed 0: micro-F1" in message for message in caplog.messages)


def test_api_raises_the_text_of_the_command(
    tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    with pytest.raises(toxbench.ToxbenchError) as caught:
        toxbench.run(tmp_path / "none.csv", backbones=[])
    code, stderr = command("run", "--data", str(tmp_path / "none.csv"), "--backbones", "none")
    assert stderr == f"toxbench: error: {caught.value}\n"
    assert caught.value.exit_code == code == 3
