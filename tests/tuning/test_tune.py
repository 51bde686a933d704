"""A whole search through the Python API, on a small table with a tiny checkpoint."""

import csv
import json
import math
import shutil
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from support import write_checkpoint, write_table

import toxbench
from toxbench.benchmark.feedback import TuneFeedback
from toxbench.benchmark.validate import resolve
from toxbench.config import build_run_settings, read_config
from toxbench.data.splits import draw_folds
from toxbench.data.table import read_comments
from toxbench.errors import CellsFailedError, DataError, SettingsError, StorageError
from toxbench.plugin.registry import Registry
from toxbench.records import CellKey, TrialRecord
from toxbench.store.cells import read_cell
from toxbench.tuning.tune import plan_tuning, run_tuning

if TYPE_CHECKING:
    from tuning.conftest import Search

VOLATILE = {"study", "uid", "worker", "seconds", "finished_at"}  # differs from run to run
BAD_START = 19  # a seed whose first two draws are the hopeless rate
HOPELESS = {"learning_rate": "1e29:1e31:log"}
ONE = {"trials": 1, "finalists": 1}


def comparable(records: list[TrialRecord]) -> list[dict[str, Any]]:
    """What two runs of the same search have in common."""
    return [record.model_dump(exclude=VOLATILE) for record in records]


def tuned_toml(search: "Search") -> dict[str, Any]:
    return tomllib.loads((search.study / "tuned.toml").read_text(encoding="utf-8"))


# What there is at the end


def test_a_search_leaves_settings_trials_plots_and_a_tuned_row(finished: "Search") -> None:
    names = {path.name for path in finished.study.iterdir() if path.is_file()}
    plots = {"history.svg", "importance.svg", "parallel-coordinates.svg", "slices.svg"}
    assert names == {"tuned.toml", "trials.csv", *plots}
    assert all(b"<svg" in (finished.study / name).read_bytes() for name in plots)
    board = toxbench.leaderboard(finished.results)
    assert list(zip(board["candidate"], board["tuned"], strict=True)) == [("bert", True)]
    finished.check(trials=5)


def test_the_csv_holds_every_trial_and_every_finalist(finished: "Search") -> None:
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


def test_trial_0_takes_the_default_settings(finished: "Search") -> None:
    first, *others = finished.trials
    assert (first.number, first.is_default, first.state, first.params) == (0, True, "complete", {})
    assert (first.settings.learning_rate, first.settings.epochs) == (3e-5, 4)
    for record in others:
        assert not record.is_default
        assert set(record.params) == {"learning_rate", "epochs"}
        assert 1e-4 <= record.settings.learning_rate <= 1e-2
        assert record.settings.epochs in (1, 2)


def test_the_best_are_trained_again_with_fresh_seeds_on_other_folds(finished: "Search") -> None:
    trials, finalists = finished.trials, finished.finalists
    assert [f.settings for f in sorted(finalists, key=lambda f: f.plan_index)] == finished.expected
    assert not {f.seed for f in finalists} & {t.seed for t in trials}
    assert not {fold for f in finalists for fold in f.folds} & {n for t in trials for n in t.folds}


def test_the_finalist_with_the_highest_fresh_score_wins(finished: "Search") -> None:
    winner = max(finished.finalists, key=lambda record: record.value or 0)
    tuned = tuned_toml(finished)
    assert tuned["train"]["learning_rate"] == winner.settings.learning_rate
    assert tuned["tuning"]["average_precision"] == winner.value
    (default,) = [record for record in finished.finalists if record.is_default]
    assert tuned["tuning"]["default_average_precision"] == default.value
    assert tuned["tuning"]["default_won"] == (winner == default)
    assert tuned["tuning"]["trials"] == 5
    assert tuned["tuning"]["finalists"] == len(finished.finalists)
    path = next(finished.results.glob("*/cells/*"))
    record, _ = read_cell(path)
    assert record.settings == winner.settings
    assert {rule: list(t) for rule, t in record.thresholds.items()} == tuned["thresholds"]


def test_several_finalist_seeds_are_averaged(search: "Search") -> None:
    search.tune(tune={"trials": 3, "finalists": 2, "finalist_seeds": 2})
    by_settings: dict[str, list[TrialRecord]] = {}
    for record in search.finalists:
        by_settings.setdefault(record.settings.model_dump_json(), []).append(record)
    assert {len({r.seed for r in group}) for group in by_settings.values()} == {2}
    assert len(by_settings) == len(search.expected)
    means = [fmean(r.value or 0 for r in group) for group in by_settings.values()]
    assert tuned_toml(search)["tuning"]["average_precision"] == max(means)


def test_scores_are_means_over_the_inner_folds_that_were_asked_for(search: "Search") -> None:
    search.tune(tune={"trials": 2, "finalists": 1, "inner_folds": 2})
    for record in search.trials:
        assert record.folds == (0, 1)
        assert len(record.scores) == 2
        assert record.value == fmean(record.scores)
    assert {record.folds for record in search.finalists} == {(2, 3)}


def test_the_same_search_elsewhere_gives_the_same_trials(
    search: "Search", finished: "Search"
) -> None:
    search.tune()
    assert comparable(search.trials) == comparable(finished.trials)
    assert comparable(search.finalists) == comparable(finished.finalists)


# Going on


def test_asking_again_trains_nothing(finished: "Search") -> None:
    files, cells = finished.files, finished.cells
    texts = {p: p.read_bytes() for p in finished.study.iterdir() if p.is_file()}
    board = toxbench.leaderboard(finished.results)
    pd.testing.assert_frame_equal(finished.tune(), board)
    assert (finished.files, finished.cells) == (files, cells)
    assert {p: p.read_bytes() for p in finished.study.iterdir() if p.is_file()} == texts


def test_more_trials_add_only_the_missing_ones_and_fewer_none(finished: "Search") -> None:
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


def test_another_seed_and_space_are_another_study(finished: "Search") -> None:
    finished.tune(tune=ONE | {"tune_seed": 1, "space": {"epochs": "1:3"}})
    assert len(finished.studies) == 2


# The budget


def test_each_backbone_gets_as_many_trials(search: "Search", tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "tiny-distilbert", "distilbert")
    weights = (f"bert={search.checkpoint}", f"distilbert={other}")
    board = search.tune(
        backbones=["bert", "distilbert"], weights=weights, tune={"trials": 2, "finalists": 1}
    )
    assert set(board["candidate"][board["tuned"]]) == {"bert", "distilbert"}
    counts = {f.name.split("-")[0]: len(list(f.glob("trials/*.json"))) for f in search.studies}
    assert counts == {"bert": 2, "distilbert": 2}


def test_a_spent_budget_ends_the_search_but_never_the_default_settings(search: "Search") -> None:
    config = search.config.read_text(encoding="utf-8").replace("trials = 5", 'budget = "0.001s"')
    path = search.results.parent / "budget.toml"
    path.write_text(config, encoding="utf-8")
    search.tune(config=path)
    (default,) = search.trials
    assert (default.is_default, default.state, default.epochs) == (True, "complete", 4)
    assert tuned_toml(search)["train"]["learning_rate"] == 3e-5
    budget = default.seconds + 0.3
    path.write_text(config.replace("0.001s", f"{budget}s"), encoding="utf-8")
    search.tune(config=path)
    seconds = [record.seconds for record in search.trials]
    assert len(seconds) > 1
    assert math.fsum(seconds) >= budget > math.fsum(seconds[:-1])


def test_a_trial_that_meets_the_end_of_the_budget_is_ended_there(search: "Search") -> None:
    space = {"epochs": "200:300"}
    tune = {"trials": 50, "finalists": 1, "pruner": "none", "space": space}
    search.tune(tune=tune | {"budget": "0.001s"})
    (default,) = search.trials
    search.tune(tune=tune | {"budget": f"{default.seconds + 0.5}s"})
    last = search.trials[-1]
    assert (last.state, last.value) == ("pruned", None)
    assert "budget" in last.reason
    assert 0 < last.epochs < last.settings.epochs


# What is searched


def test_a_setting_that_is_given_is_kept_and_not_searched(search: "Search") -> None:
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
        ({"tune": {"space": {"selection": "best,last"}}}, SettingsError),
        ({"tune": {"space": {"learning_rat": "1e-5:1e-3"}}}, SettingsError),
        ({"tune": {"space": {"max_length": "16:131"}}}, SettingsError),
        ({"tune": {"space": {"epochs": "0:3"}}}, SettingsError),
        ({"tune": {"trials": 0}}, SettingsError),
        ({"tune": {"budget": "soon"}}, SettingsError),
        ({"tune": {"inner_folds": 0}}, SettingsError),
        ({"tune": {"inner_folds": 9}}, SettingsError),
        ({"tune": {"sampler": "best"}}, SettingsError),
        ({"tune": {"trails": 3}}, SettingsError),
        ({"tune": {"storage": "nonsense"}}, SettingsError),
        ({"backbones": []}, SettingsError),
        ({"data": "nowhere.csv"}, DataError),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(
    search: "Search", options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        search.tune(**options)
    assert not search.results.exists()


# What fails


def test_what_diverges_is_failed_and_never_the_best(search: "Search") -> None:
    board = search.tune(tune={"trials": 3, "space": HOPELESS})
    default, *others = search.trials
    assert default.state == "complete"
    assert [record.state for record in others] == ["failed", "failed"]
    assert all("lower the learning rate" in record.reason for record in others)
    assert [record.value for record in others] == [None, None]
    assert tuned_toml(search)["train"]["learning_rate"] == 3e-5
    assert list(board["candidate"]) == ["bert"]


def test_a_bad_start_does_not_end_the_search(search: "Search") -> None:
    space = {"head_learning_rate": [1e30, 1e-3]}
    tune = {"trials": 6, "finalists": 1, "sampler": "random", "space": space}
    search.tune(train={"head_learning_rate": 1e30}, tune=tune | {"tune_seed": BAD_START})
    states = [record.state for record in search.trials]
    assert states[:3] == ["failed"] * 3
    assert len(states) == 6
    assert "complete" in states


def test_where_every_trial_fails_there_are_no_tuned_settings(search: "Search") -> None:
    with pytest.raises(CellsFailedError, match=r"bert.*lower the learning rate"):
        search.tune(train={"learning_rate": 1e30}, tune={"trials": 3, "space": HOPELESS})
    assert {record.state for record in search.trials} == {"failed"}
    assert not (search.study / "tuned.toml").exists()
    assert search.cells == {}


PLUGIN = '''
"""Backbones that remember what they tokenise, and some that break."""
import json, os
import torch
from toxbench import Backbone, TrainSettings, hookimpl

class Listening:
    """A tokenizer of one token a word that remembers every text."""
    pad_token_id = 0
    def __call__(self, texts, truncation, max_length):
        with open(os.environ["SEEN"], "a") as file:  # trials have a process of their own
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
        return Listening()

@hookimpl
def toxbench_backbones():
    return [
        WordBackbone(name=name, checkpoint="nobody/nothing", head=("fc",),
                     defaults=TrainSettings(epochs=1, learning_rate=1e-2))
        for name in ("words", "words-raising", "words-nan")
    ]
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a distribution of backbones; give the file of texts that were tokenised."""
    info = tmp_path / "site" / "words_of_tuning-1.0.dist-info"
    info.mkdir(parents=True)
    (info.parent / "words_of_tuning.py").write_text(PLUGIN, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: words-of-tuning\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[toxbench]\nwords_of_tuning = words_of_tuning\n")
    monkeypatch.setenv("TOXBENCH_CACHE", str(tmp_path / "own-cache"))
    monkeypatch.syspath_prepend(info.parent)
    monkeypatch.delitem(sys.modules, "words_of_tuning", raising=False)
    seen = tmp_path / "seen.jsonl"
    monkeypatch.setenv("SEEN", str(seen))
    return seen


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
def test_a_backbone_that_breaks_harms_no_other_one(
    search: "Search", plugin: Path, broken: str
) -> None:
    tune = {"trials": 3, "finalists": 1}
    with pytest.raises(CellsFailedError, match=broken) as raised:
        search.tune(**word_options(search, broken, "words"), tune=tune)
    assert "\n" not in str(raised.value)
    failed, tuned = sorted(search.studies, key=lambda path: not path.name.startswith(broken))
    assert failed.name.startswith(f"{broken}-")
    assert not (failed / "tuned.toml").exists()
    assert (tuned / "tuned.toml").exists()
    board = toxbench.leaderboard(search.results)
    assert list(zip(board["candidate"], board["tuned"], strict=True)) == [("words", True)]


class Watching(TuneFeedback):
    """Notes what was tokenised when the first cell begins: the search is over by then."""

    def __init__(self, seen: Path) -> None:
        self._seen = seen
        self.in_the_search: list[str] | None = None

    def cell_started(self, key: CellKey, number: int, total: int, epochs: int | None) -> None:
        if self.in_the_search is None:
            lines = self._seen.read_text(encoding="utf-8").splitlines()
            self.in_the_search = [json.loads(line) for line in lines]


def test_no_trial_ever_sees_a_test_comment(search: "Search", plugin: Path) -> None:
    options = word_options(search, "words")
    tune = {"trials": 3, "inner_folds": 2}
    flags = options | {"data": search.data, "results": search.results, "tune": tune}
    del flags["config"]
    registry = Registry.discover()
    planned = plan_tuning(
        resolve(build_run_settings(read_config(options["config"]), flags), registry)
    )
    watching = Watching(plugin)
    assert run_tuning(planned, watching).failures == ()
    comments, fold = planned.plan.protocol.comments, planned.plan.protocol.folds[0]
    tests = {comments.texts[row] for row in fold.test}
    others = {comments.texts[row] for row in (*fold.train, *fold.validation)}
    assert watching.in_the_search is not None
    assert set(watching.in_the_search) == others
    assert not tests & others


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_the_labels_of_the_test_rows_change_no_trial(search: "Search", pruner: str) -> None:
    tune = {"trials": 5, "finalists": 1, "pruner": pruner, "space": {"epochs": "1:6"}}
    search.tune(tune=tune)
    comments = read_comments(search.data)
    test = draw_folds(comments)[0].test
    frame = pd.read_csv(search.data)
    frame.loc[test, list(comments.labels)] = 1 - frame.loc[test, list(comments.labels)]
    changed = search.results.parent / "changed.csv"
    frame.to_csv(changed, index=False)
    other = replace(search, data=changed, results=search.results.parent / "changed")
    other.tune(tune=tune)
    assert search.study.parent.parent.name != other.study.parent.parent.name
    assert comparable(other.trials) == comparable(search.trials)
    assert [record.is_default for record in search.trials] == [True] + [False] * 4
    assert comparable(other.finalists) == comparable(search.finalists)
    one, twin = (tuned_toml(s) for s in (search, other))
    for chosen in ("train", "thresholds"):
        assert one[chosen] == twin[chosen]
    (cell,), (twins,) = (list(s.results.glob("*/cells/*")) for s in (search, other))
    (record, probabilities), (again, others) = read_cell(cell), read_cell(twins)
    assert (record.best_epoch, record.thresholds) == (again.best_epoch, again.thresholds)
    assert all(np.array_equal(probabilities[part], others[part]) for part in probabilities)
    assert record.metrics["0.5"]["test"] != again.metrics["0.5"]["test"]


# Using what was found


def test_a_tuned_run_puts_both_rows_side_by_side_and_trains_only_the_defaults(
    finished: "Search",
) -> None:
    before, tuned_row = finished.cells, toxbench.leaderboard(finished.results)
    board = finished.run_tuned()
    assert sorted(board["tuned"]) == [False, True]
    assert before.items() < finished.cells.items()
    assert len(finished.cells) == 2
    both = board[board["tuned"]].drop(columns="rank").reset_index(drop=True)
    pd.testing.assert_frame_equal(both, tuned_row.drop(columns="rank"), check_dtype=False)
    row = both.iloc[0]
    assert (
        row["validation_average_precision"] == tuned_toml(finished)["tuning"]["average_precision"]
    )
    optimism = row["validation_average_precision"] - row["micro_average_precision"]
    assert row["optimism"] == pytest.approx(optimism)
    assert np.isnan(board[~board["tuned"]]["optimism"].astype(float)).all()


def test_tuned_cells_trained_again_elsewhere_are_the_same(finished: "Search") -> None:
    (cell,) = finished.results.glob("*/cells/*")
    first, before = read_cell(cell)
    cell.unlink()
    finished.run_tuned()
    second, after = read_cell(cell)
    assert all(np.array_equal(before[part], after[part]) for part in before)
    assert second.metrics == first.metrics


def test_tuned_settings_of_other_weights_are_not_used(finished: "Search", tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", "bert", seed=1)
    with pytest.raises(SettingsError, match="toxbench tune"):
        finished.run_tuned(weights=f"bert={other}")
    assert len(finished.cells) == 1


@pytest.mark.parametrize("change", ["table", "split"])
def test_tuned_settings_of_another_table_or_split_are_not_used(
    finished: "Search", tmp_path: Path, change: str
) -> None:
    options: dict[str, Any] = {"split": {"split_seed": 1}}
    if change == "table":
        options = {"data": write_table(tmp_path / "comments.csv", rows=61)}
    with pytest.raises(SettingsError, match="toxbench tune"):
        finished.run_tuned(**options)


def test_weights_in_a_folder_of_any_name_can_be_used(search: "Search", tmp_path: Path) -> None:
    name = 'wörter 😀 "\\ a\nb = 1'
    weights = f"bert={shutil.copytree(search.checkpoint, tmp_path / name)}"
    search.tune(weights=weights, tune=ONE)
    board = search.run_tuned(weights=weights)
    assert sorted(board["tuned"]) == [False, True]


def test_damaged_tuned_settings_are_named_and_made_again(finished: "Search") -> None:
    path = finished.study / "tuned.toml"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match=r"tuned\.toml is damaged"):
        finished.run_tuned()
    finished.tune()
    assert path.read_bytes() == whole


def test_no_comment_is_stored_anywhere(finished: "Search") -> None:
    for path in finished.results.rglob("*"):
        if path.is_file():
            assert b"you fool" not in path.read_bytes(), path
