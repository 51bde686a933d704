"""Complete searches through the Python API, on a small table with a tiny checkpoint."""

import csv
import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from support import write_checkpoint, write_table

import toxbench
from toxbench.benchmark.progress import TuneFeedback
from toxbench.benchmark.validate import resolve
from toxbench.config import build_run_settings, read_config
from toxbench.data.splits import draw_folds
from toxbench.data.table import read_comments
from toxbench.errors import CellsFailedError, DataError, SettingsError, StorageError
from toxbench.plugin.registry import Registry
from toxbench.records import CellKey, TrialRecord
from toxbench.store.files import read_cell
from toxbench.store.trials import read_tuned
from toxbench.tuning.tune import plan_tuning, run_tuning

if TYPE_CHECKING:
    from tuning.conftest import Search

pytestmark = pytest.mark.slow

VOLATILE = {"study", "uid", "worker", "seconds", "finished_at"}  # differs from run to run
BAD_START = 19  # a seed whose first two trials get the diverging rate
DIVERGING = {"learning_rate": "1e29:1e31:log"}
ONE_TRIAL = {"trials": 1, "finalists": 1}


def stable_fields(records: list[TrialRecord]) -> list[dict[str, Any]]:
    """Return the fields that are equal in two runs of the same search."""
    return [record.model_dump(exclude=VOLATILE) for record in records]


# Results


def test_search_writes_all_results(finished: "Search") -> None:
    names = {path.name for path in finished.study.iterdir() if path.is_file()}
    plots = {"history.svg", "importance.svg", "parallel-coordinates.svg", "slices.svg"}
    assert names == {"tuned.toml", "trials.csv", *plots}
    assert all(b"<svg" in (finished.study / name).read_bytes() for name in plots)
    board = toxbench.load(finished.results).leaderboard
    rows = zip(board["candidate"], board["tuned"], strict=True)
    assert sorted(rows) == [("bert", False), ("bert", True)]
    finished.check(trials=5)


def test_csv_has_every_trial_and_finalist(finished: "Search") -> None:
    with (finished.study / "trials.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    finalists = ["finalist"] * len(finished.finalists)
    assert [row["phase"] for row in rows] == ["search"] * 5 + finalists
    for row, record in zip(rows, finished.trials + finished.finalists, strict=True):
        assert int(row["number"]) == record.number
        assert row["score"] == ("" if record.value is None else str(record.value))
        assert float(row["learning_rate"]) == record.settings.learning_rate
        assert row["uid"] == record.uid
        assert row["default"] == str(record.is_default)


def test_trial_0_has_the_default_settings(finished: "Search") -> None:
    first, *rest = finished.trials
    assert (first.number, first.is_default, first.state, first.params) == (0, True, "complete", {})
    assert (first.settings.learning_rate, first.settings.epochs) == (3e-5, 4)
    for record in rest:
        assert not record.is_default
        assert set(record.params) == {"learning_rate", "epochs"}
        assert 1e-4 <= record.settings.learning_rate <= 1e-2
        assert record.settings.epochs in (1, 2)


def test_finalists_have_fresh_seeds_and_folds(finished: "Search") -> None:
    trials, finalists = finished.trials, finished.finalists
    by_slot = sorted(finalists, key=lambda record: record.plan_index)
    assert [record.settings for record in by_slot] == finished.expected_finalists
    assert not {f.seed for f in finalists} & {t.seed for t in trials}
    assert not {fold for f in finalists for fold in f.folds} & {n for t in trials for n in t.folds}


def test_finalist_with_the_best_score_wins(finished: "Search") -> None:
    winner = max(finished.finalists, key=lambda record: record.value or 0)
    tuned = finished.tuned_toml
    assert tuned["train"]["learning_rate"] == winner.settings.learning_rate
    assert tuned["tuning"]["score"] == winner.value
    (default,) = [record for record in finished.finalists if record.is_default]
    assert tuned["tuning"]["default_score"] == default.value
    assert tuned["tuning"]["default_won"] == (winner == default)
    assert tuned["tuning"]["trials"] == 5
    assert tuned["tuning"]["finalists"] == len(finished.finalists)
    record, _ = read_cell(finished.tuned_cell)
    assert record.settings == winner.settings
    assert {rule: list(t) for rule, t in record.thresholds.items()} == tuned["thresholds"]


def test_finalist_seeds_are_averaged(search: "Search") -> None:
    search.tune(tune={"trials": 3, "finalists": 2, "finalist_seeds": 2})
    by_settings: dict[str, list[TrialRecord]] = {}
    for record in search.finalists:
        by_settings.setdefault(record.settings.model_dump_json(), []).append(record)
    assert {len({r.seed for r in group}) for group in by_settings.values()} == {2}
    assert len(by_settings) == len(search.expected_finalists)
    means = [fmean(r.value or 0 for r in group) for group in by_settings.values()]
    assert search.tuned_toml["tuning"]["score"] == max(means)


def test_scores_are_means_over_inner_folds(search: "Search") -> None:
    search.tune(tune={"trials": 2, "finalists": 1, "inner_folds": 2})
    for record in search.trials:
        assert record.folds == (0, 1)
        assert len(record.scores) == 2
        assert record.value == fmean(record.scores)
    assert {record.folds for record in search.finalists} == {(4,)}


def test_finalists_train_on_all_inner_folds(search: "Search") -> None:
    search.tune(tune={"trials": 1, "finalists": 1, "finalist_folds": 5, "finalist_seeds": 2})
    assert [record.folds for record in search.finalists] == [(0, 1, 2, 3, 4)] * 2
    assert len({record.seed for record in search.finalists}) == 2


def test_each_fold_has_its_own_search(search: "Search") -> None:
    options = {"split": {"folds": 2}, "tune": {"trials": 3, "finalists": 1}}
    board = search.tune(**options)
    assert len(search.studies) == 2
    paths = [folder / "tuned.toml" for folder in search.studies]
    tuned = {settings.fold: settings for settings in map(read_tuned, paths)}
    cells = [read_cell(path)[0] for path in search.results.glob("*/cells/*")]
    tuned_cells = {cell.key.fold: cell for cell in cells if cell.tuning is not None}
    assert set(tuned) == set(tuned_cells) == {0, 1}
    assert {cell.key.digest for cell in tuned_cells.values()} == {tuned_cells[0].key.digest}
    for fold, cell in tuned_cells.items():
        assert cell.settings == tuned[fold].train
        assert cell.thresholds == tuned[fold].thresholds
    assert sorted(board["tuned"]) == [False, True]
    stored = search.cells
    search.run_tuned(split={"folds": 2})
    assert search.cells == stored


def test_same_search_gives_the_same_trials(search: "Search", finished: "Search") -> None:
    search.tune()
    assert stable_fields(search.trials) == stable_fields(finished.trials)
    assert stable_fields(search.finalists) == stable_fields(finished.finalists)


# Resuming


def test_finished_search_trains_no_trial(finished: "Search") -> None:
    files, cells = finished.files, finished.cells
    contents = {p: p.read_bytes() for p in finished.study.iterdir() if p.is_file()}
    board = toxbench.load(finished.results).leaderboard
    pd.testing.assert_frame_equal(finished.tune(), board)
    assert (finished.files, finished.cells) == (files, cells)
    assert {p: p.read_bytes() for p in finished.study.iterdir() if p.is_file()} == contents


def test_more_trials_add_only_missing_trials(finished: "Search") -> None:
    before = finished.files
    finished.tune(tune={"trials": 7})
    assert before.items() <= finished.files.items()
    trials = finished.trials
    assert [record.number for record in trials] == list(range(7))
    assert [record.plan_index for record in trials] == list(range(7))
    assert [record.is_default for record in trials] == [True] + [False] * 6
    before = finished.files
    finished.tune(tune={"trials": 2})
    assert finished.files == before


def test_new_seed_or_space_starts_a_study(finished: "Search") -> None:
    finished.tune(tune=ONE_TRIAL | {"tune_seed": 1, "space": {"epochs": "1:3"}})
    assert len(finished.studies) == 2


# The budget


def test_each_backbone_gets_all_trials(search: "Search", tmp_path: Path) -> None:
    distilbert = write_checkpoint(tmp_path / "tiny-distilbert", "distilbert")
    weights = (f"bert={search.checkpoint}", f"distilbert={distilbert}")
    board = search.tune(
        backbones=["bert", "distilbert"], weights=weights, tune={"trials": 2, "finalists": 1}
    )
    assert set(board["candidate"][board["tuned"]]) == {"bert", "distilbert"}
    counts = {f.name.split("-")[0]: len(list(f.glob("trials/*.json"))) for f in search.studies}
    assert counts == {"bert": 2, "distilbert": 2}


def test_spent_budget_leaves_only_the_default_trial(search: "Search") -> None:
    config = search.config.read_text(encoding="utf-8").replace("trials = 5", 'budget = "0.001s"')
    path = search.results.parent / "budget.toml"
    path.write_text(config, encoding="utf-8")
    search.tune(config=path)
    (default,) = search.trials
    assert (default.is_default, default.state, default.epochs) == (True, "complete", 4)
    assert search.tuned_toml["train"]["learning_rate"] == 3e-5
    budget = default.seconds + 0.3
    path.write_text(config.replace("0.001s", f"{budget}s"), encoding="utf-8")
    search.tune(config=path)
    seconds = [record.seconds for record in search.trials]
    assert len(seconds) > 1
    assert math.fsum(seconds) >= budget > math.fsum(seconds[:-1])


def test_budget_ends_a_running_trial(search: "Search") -> None:
    space = {"epochs": "200:300"}
    tune = {"trials": 50, "finalists": 1, "pruner": "none", "space": space}
    search.tune(tune=tune | {"budget": "0.001s"})
    (default,) = search.trials
    search.tune(tune=tune | {"budget": f"{default.seconds + 0.5}s"})
    last = search.trials[-1]
    assert (last.state, last.value) == ("pruned", None)
    assert "budget" in last.reason
    assert 0 < last.epochs < last.settings.epochs


# The search space


def test_setting_of_the_user_is_not_searched(search: "Search") -> None:
    config = search.results.parent / "no-epochs.toml"
    text = search.config.read_text(encoding="utf-8").replace('epochs = "1:2"', "")
    config.write_text(text.replace("max_length = 16", "max_length = 16\nepochs = 2"), "utf-8")
    search.tune(config=config, tune={"trials": 3, "finalists": 1})
    trials = search.trials
    assert {record.settings.epochs for record in trials} == {2}
    assert [set(record.params) for record in trials[1:]] == [{"learning_rate"}] * 2
    assert "epochs" not in trials[0].params


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"tune": {"space": {"seed": "1:5"}}}, SettingsError),
        ({"tune": {"space": {"precision": "fp32,bf16"}}}, SettingsError),
        ({"tune": {"space": {"learning_rat": "1e-5:1e-3"}}}, SettingsError),
        ({"tune": {"space": {"max_length": "16:131"}}}, SettingsError),
        ({"tune": {"space": {"epochs": "0:3"}}}, SettingsError),
        ({"tune": {"trials": 0}}, SettingsError),
        ({"tune": {"budget": "soon"}}, SettingsError),
        ({"tune": {"inner_folds": 0}}, SettingsError),
        ({"tune": {"inner_folds": 9}}, SettingsError),
        ({"tune": {"sampler": "best"}}, SettingsError),
        ({"tune": {"trails": 3}}, SettingsError),
        ({"tune": {"objectives": "gap"}}, SettingsError),
        ({"tune": {"objectives": "metric,gain"}}, SettingsError),
        ({"tune": {"objectives": "metric,gap", "pruner": "median"}}, SettingsError),
        ({"tune": {"pick": 0}}, SettingsError),
        ({"tune": {"objectives": "metric,gap", "pick": 0}, "split": {"folds": 2}}, SettingsError),
        ({"tune": {"storage": "nonsense"}}, SettingsError),
        ({"backbones": []}, SettingsError),
        ({"data": "nowhere.csv"}, DataError),
    ],
)
def test_invalid_options_are_refused_before_training(
    search: "Search", options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        search.tune(**options)
    assert not search.results.exists()


# Failures


def test_diverged_trials_fail_and_never_win(search: "Search") -> None:
    board = search.tune(tune={"trials": 3, "space": DIVERGING})
    default, *rest = search.trials
    assert default.state == "complete"
    assert [record.state for record in rest] == ["failed", "failed"]
    assert all("lower the learning rate" in record.reason for record in rest)
    assert [record.value for record in rest] == [None, None]
    assert search.tuned_toml["train"]["learning_rate"] == 3e-5
    assert list(board["candidate"]) == ["bert", "bert"]


def test_search_continues_after_failed_trials(search: "Search") -> None:
    space = {"head_learning_rate": [1e30, 1e-3]}
    tune = {"trials": 6, "finalists": 1, "sampler": "random", "space": space}
    search.tune(train={"head_learning_rate": 1e30}, tune=tune | {"tune_seed": BAD_START})
    states = [record.state for record in search.trials]
    assert states[:3] == ["failed"] * 3
    assert len(states) == 6
    assert "complete" in states


def test_no_tuned_settings_if_every_trial_fails(search: "Search") -> None:
    with pytest.raises(CellsFailedError, match=r"bert.*lower the learning rate"):
        search.tune(train={"learning_rate": 1e30}, tune={"trials": 3, "space": DIVERGING})
    assert {record.state for record in search.trials} == {"failed"}
    assert not (search.study / "tuned.toml").exists()
    assert search.cells == {}


PLUGIN = '''
"""Backbones that log tokenised texts, and backbones that fail."""
import json, os
import torch
from toxbench import Backbone, TrainSettings, hookimpl

class LoggingTokenizer:
    """A tokenizer with one token per word that logs every text."""
    pad_token_id = 0
    def __call__(self, texts, truncation, max_length):
        with open(os.environ["TOKENISED"], "a") as file:  # trials run in other processes
            file.writelines(json.dumps(text) + "\\n" for text in texts)
        return {"input_ids": [[1 + len(w) for w in t.split()][:max_length] for t in texts]}

class Words(torch.nn.Module):
    def __init__(self, label_count, kind):
        super().__init__()
        self.kind = kind
        self.words = torch.nn.EmbeddingBag(100, 4)
        self.fc = torch.nn.Linear(4, label_count)
    def forward(self, input_ids, attention_mask):
        if self.kind == "words-raising":
            raise RuntimeError("no\\nforward \\x1b[31m today")
        logits = self.fc(self.words(input_ids))
        return logits * torch.nan if self.kind == "words-nan" else logits

class WordBackbone(Backbone):
    def build(self, weights, label_count):
        return Words(label_count, self.name)
    def tokenizer(self, weights):
        return LoggingTokenizer()

@hookimpl
def toxbench_backbones():
    return [
        WordBackbone(name=name, checkpoint="owner/name", head=("fc",),
                     defaults=TrainSettings(epochs=1, learning_rate=1e-2))
        for name in ("words", "words-raising", "words-nan")
    ]
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a distribution of backbones; return the path of their log of tokenised texts."""
    info = tmp_path / "site" / "words_of_tuning-1.0.dist-info"
    info.mkdir(parents=True)
    (info.parent / "words_of_tuning.py").write_text(PLUGIN, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: words-of-tuning\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[toxbench]\nwords_of_tuning = words_of_tuning\n")
    monkeypatch.setenv("TOXBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(info.parent)
    monkeypatch.delitem(sys.modules, "words_of_tuning", raising=False)
    log = tmp_path / "tokenised.jsonl"
    monkeypatch.setenv("TOKENISED", str(log))
    return log


def word_options(search: "Search", *names: str) -> dict[str, Any]:
    config = search.results.parent / "words.toml"
    text = search.config.read_text(encoding="utf-8").replace("dropout = 0.1\n", "")
    config.write_text(text, encoding="utf-8")
    return {
        "config": config,
        "backbones": names,
        "weights": tuple(f"{name}={search.checkpoint}" for name in names),
    }


@pytest.mark.parametrize("broken", ["words-raising", "words-nan"])
def test_failing_backbone_loses_only_itself(search: "Search", plugin: Path, broken: str) -> None:
    tune = {"trials": 3, "finalists": 1}
    with pytest.raises(CellsFailedError, match=broken) as raised:
        search.tune(**word_options(search, broken, "words"), tune=tune)
    assert "\n" not in str(raised.value)
    failed, tuned = sorted(search.studies, key=lambda path: not path.name.startswith(broken))
    assert failed.name.startswith(f"{broken}-")
    assert not (failed / "tuned.toml").exists()
    assert (tuned / "tuned.toml").exists()
    board = toxbench.load(search.results).leaderboard
    rows = zip(board["candidate"], board["tuned"], strict=True)
    assert sorted(rows, reverse=True) == [("words", True), ("words", False)]


class TextRecorder(TuneFeedback):
    """Reads the tokenised texts when the first cell starts, after the search."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.search_texts: list[str] | None = None

    def cell_started(self, key: CellKey, number: int, total: int, epochs: int | None) -> None:
        if self.search_texts is None:
            lines = self._log.read_text(encoding="utf-8").splitlines()
            self.search_texts = [json.loads(line) for line in lines]


def test_no_trial_gets_a_test_comment(search: "Search", plugin: Path) -> None:
    options = word_options(search, "words")
    tune = {"trials": 3, "inner_folds": 2}
    flags = options | {"data": search.data, "results": search.results, "tune": tune}
    del flags["config"]
    registry = Registry.discover()
    planned = plan_tuning(
        resolve(build_run_settings(read_config(options["config"]), flags), registry)
    )
    recorder = TextRecorder(plugin)
    assert run_tuning(planned, recorder).failures == ()
    comments, fold = planned.plan.protocol.comments, planned.plan.protocol.folds[0]
    test_texts = {comments.texts[row] for row in fold.test}
    inner_texts = {comments.texts[row] for row in (*fold.train, *fold.validation)}
    assert recorder.search_texts is not None
    assert set(recorder.search_texts) == inner_texts
    assert not test_texts & inner_texts


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_test_labels_change_no_trial(search: "Search", pruner: str) -> None:
    tune = {"trials": 5, "finalists": 1, "pruner": pruner, "space": {"epochs": "1:6"}}
    search.tune(tune=tune)
    comments = read_comments(search.data)
    test = draw_folds(comments)[0].test
    frame = pd.read_csv(search.data)
    frame.loc[test, list(comments.labels)] = 1 - frame.loc[test, list(comments.labels)]
    changed = search.results.parent / "changed.csv"
    frame.to_csv(changed, index=False)
    changed_search = replace(search, data=changed, results=search.results.parent / "changed")
    changed_search.tune(tune=tune)
    assert search.study.parent.parent.name != changed_search.study.parent.parent.name
    assert stable_fields(changed_search.trials) == stable_fields(search.trials)
    assert [record.is_default for record in search.trials] == [True] + [False] * 4
    assert any(trial.system_attributes for trial in search.trials)
    assert stable_fields(changed_search.finalists) == stable_fields(search.finalists)
    tuned, changed_tuned = search.tuned_toml, changed_search.tuned_toml
    for table in ("train", "thresholds"):
        assert tuned[table] == changed_tuned[table]
    (first, first_probabilities), (second, second_probabilities) = map(
        read_cell, (search.tuned_cell, changed_search.tuned_cell)
    )
    assert first.thresholds == second.thresholds
    assert first_probabilities.keys() == second_probabilities.keys()
    for part, probabilities in first_probabilities.items():
        assert np.array_equal(probabilities, second_probabilities[part])
    assert first.metrics["0.5"]["test"] != second.metrics["0.5"]["test"]


# Use of tuned settings


def test_tuned_run_trains_nothing_again(finished: "Search") -> None:
    before, board = finished.cells, toxbench.load(finished.results).leaderboard
    pd.testing.assert_frame_equal(finished.run_tuned(), board)
    assert finished.cells == before
    tuning = finished.tuned_toml["tuning"]
    promised = board[board["tuned"]]["promised_gain"].item()
    assert promised == tuning["score"] - tuning["default_score"]
    assert np.isnan(board[~board["tuned"]]["promised_gain"].astype(float)).all()


def test_retrained_tuned_cells_are_equal(finished: "Search") -> None:
    cell = finished.tuned_cell
    first, before = read_cell(cell)
    cell.unlink()
    finished.run_tuned()
    second, after = read_cell(cell)
    assert all(np.array_equal(before[part], after[part]) for part in before)
    assert second.metrics == first.metrics


def test_settings_of_other_weights_are_not_used(finished: "Search", tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "other", "bert", seed=1)
    with pytest.raises(SettingsError, match="toxbench tune"):
        finished.run_tuned(weights=f"bert={checkpoint}")
    assert len(finished.cells) == 2


@pytest.mark.parametrize("change", ["table", "split"])
def test_settings_of_another_protocol_are_not_used(
    finished: "Search", tmp_path: Path, change: str
) -> None:
    options: dict[str, Any] = {"split": {"split_seed": 1}}
    if change == "table":
        options = {"data": write_table(tmp_path / "comments.csv", rows=61)}
    with pytest.raises(SettingsError, match="toxbench tune"):
        finished.run_tuned(**options)


def test_weights_folder_may_have_any_name(search: "Search", tmp_path: Path) -> None:
    name = 'wörter 😀 "\\ a\nb = 1'
    weights = f"bert={shutil.copytree(search.checkpoint, tmp_path / name)}"
    search.tune(weights=weights, tune=ONE_TRIAL)
    board = search.run_tuned(weights=weights)
    assert sorted(board["tuned"]) == [False, True]


def test_damaged_tuned_settings_are_rewritten(finished: "Search") -> None:
    path = finished.study / "tuned.toml"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(StorageError, match=r"tuned\.toml is damaged"):
        finished.run_tuned()
    finished.tune()
    assert path.read_bytes() == content


def test_no_comment_is_stored(finished: "Search") -> None:
    for path in finished.results.rglob("*"):
        if path.is_file():
            assert b"you fool" not in path.read_bytes(), path
