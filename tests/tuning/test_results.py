"""The files of a finished search, written from its records alone."""

import csv
import shutil
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from toxbench import Backbone, Choice, Range, TrainSettings
from toxbench.benchmark.candidates import BackboneCandidate
from toxbench.data.protocol import Protocol
from toxbench.data.table import TextDataset
from toxbench.errors import StorageError
from toxbench.plugin.contracts import Dimension
from toxbench.records import TrialRecord, WeightsRecord
from toxbench.settings import TuneSettings
from toxbench.store.trials import TrialStore, find_tuned, read_tuned
from toxbench.training.device import choose_device
from toxbench.training.weights import Weights
from toxbench.tuning.results import CSV_FILE, make_tuned_settings, write_results, write_study
from toxbench.tuning.search import SearchResult
from toxbench.tuning.spec import SearchSpec

PLOTS = {"history.svg", "importance.svg", "parallel-coordinates.svg", "slices.svg"}
SPACE: dict[str, Dimension] = {
    "learning_rate": Range(1e-5, 1e-3, log=True),
    "epochs": Range(2, 8),
    "batch_size": Choice((8, 16)),
    "focal_gamma": Range(0.5, 3.0, when=("loss", "focal")),
}
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-5, 1e-3, log=True),
    "epochs": IntDistribution(2, 8),
}


def make_spec(folder: Path, name: str = "comments.csv", label: str = "hub") -> SearchSpec:
    """Make a search in ``folder`` with the name of its table and the label of its weights."""
    comments = TextDataset(
        name=name, ids=("a", "b"), texts=("secret prose", "more prose"),
        codes=np.eye(2, dtype=np.uint8), labels=("IsRude", "IsLong"), groups=None,
        ignored_columns=(), columns={},
    )  # fmt: skip
    record = WeightsRecord(source="local", label=label, identity="abc")
    return SearchSpec(
        candidate=BackboneCandidate(
            backbone=Backbone(name="bert", checkpoint="a/b"),
            distribution="toxbench 0",
            weights=Weights(record, None, {}),
            settings=TrainSettings(),
        ),
        device=choose_device("cpu", "fp32"),
        space=SPACE,
        data=Protocol(comments, ()),
        settings=TuneSettings(trials=6, inner_folds=2),
        studies_folder=folder / "tuning",
        fingerprint="f" * 64,
    )


def make_trial(number: int, value: float | None = None, **changes: Any) -> TrialRecord:
    rate, epochs = 1e-5 * 1.5**number, 2 + number % 7
    settings = TrainSettings(learning_rate=rate, epochs=epochs)
    fields: dict[str, Any] = {
        "study": "bert-1",
        "uid": f"{number:040x}",
        "number": number,
        "state": "pruned" if value is None else "complete",
        "reason": "too low after epoch 1" if value is None else "",
        "is_default": number == 0,
        "params": {"learning_rate": rate, "epochs": epochs},
        "distributions": {
            name: distribution_to_json(distribution) for name, distribution in DISTRIBUTIONS.items()
        },
        "settings": settings,
        "seed": 10_001,
        "folds": (0, 1),
        "metric": "headline",
        "value": value,
        "scores": () if value is None else (value, value),
        "epoch_scores": {1: 0.1},
        "epochs": epochs,
        "seconds": 1.23456,
        "thresholds": {"0.5": (0.5, 0.5), "global": (0.25, 0.25)},
        "finished_at": f"2026-01-02T03:04:{number:02}+00:00",
    }
    return TrialRecord(**(fields | changes))


FAILED = make_trial(
    3, state="failed", reason='ValueError: "a", b; \x1b[31mc', epoch_scores={}, thresholds={}
)
TRIALS = (make_trial(0, 0.5), make_trial(1, 0.6), make_trial(2), FAILED, make_trial(4, 0.8))
BEST, SECOND = TRIALS[4].settings, TRIALS[1].settings
WINNER = (
    make_trial(
        0,
        0.75,
        settings=BEST,
        is_default=False,
        thresholds={"0.5": (0.5, 0.5), "global": (0.2, 0.2)},
    ),
    make_trial(2, 0.25, settings=BEST, thresholds={"0.5": (0.5, 0.5), "global": (0.6, 0.6)}),
)
RUNNER_UP = (make_trial(1, 0.4, settings=SECOND), make_trial(6, 0.3, settings=SECOND))
DEFAULT = (
    make_trial(3, 0.2, settings=TRIALS[0].settings, is_default=True),
    make_trial(4, 0.4, settings=TRIALS[0].settings, is_default=True),
)
RESULT = SearchResult(TRIALS, (WINNER, RUNNER_UP, DEFAULT))
ONE_TRIAL = SearchResult(TRIALS[:1], ((make_trial(0, 0.4, is_default=False),),))


@pytest.fixture
def spec(tmp_path: Path) -> SearchSpec:
    return make_spec(tmp_path)


def commit(spec: SearchSpec, result: SearchResult = RESULT) -> None:
    """Store the records of a finished search."""
    for record in result.trials:
        TrialStore(spec.folder / "trials").write(record)
    for group in result.finalists:
        for record in group:
            TrialStore(spec.folder / "finalists-0").write(record)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> SearchSpec:
    """A search with all its files."""
    spec = make_spec(tmp_path_factory.mktemp("written"))
    commit(spec)
    write_results(spec, RESULT)
    return spec


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def read_csv(spec: SearchSpec) -> list[dict[str, str]]:
    with (spec.folder / CSV_FILE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- the settings


def test_tuned_settings_are_those_of_the_winner(spec: SearchSpec) -> None:
    tuned = make_tuned_settings(spec, RESULT)
    assert tuned.train == BEST
    assert (tuned.backbone, tuned.protocol) == ("bert", "f" * 64)
    assert tuned.weights == spec.candidate.weights.record
    record = tuned.tuning
    assert record.study == spec.name
    assert (record.trials, record.pruned_trials, record.failed_trials, record.finalists) == (
        5,
        1,
        1,
        3,
    )
    assert record.score == 0.5
    assert record.default_score == pytest.approx(0.3)
    assert record.default_won is False


def test_default_score_is_of_fresh_seeds(
    spec: SearchSpec,
) -> None:
    def default_result(*finalists: Sequence[TrialRecord]) -> tuple[float | None, bool | None]:
        record = make_tuned_settings(spec, SearchResult(TRIALS, finalists)).tuning
        return record.default_score, record.default_won

    assert default_result(WINNER, DEFAULT, RUNNER_UP) == (pytest.approx(0.3), False)
    assert default_result(DEFAULT, RUNNER_UP) == (pytest.approx(0.3), True)
    assert default_result(WINNER, RUNNER_UP) == (None, False)


def test_thresholds_are_averaged_over_seeds(spec: SearchSpec) -> None:
    thresholds = make_tuned_settings(spec, RESULT).thresholds
    assert thresholds == {"0.5": (0.5, 0.5), "global": pytest.approx((0.4, 0.4))}


def test_thresholds_rule_without_all_seeds_is_omitted(spec: SearchSpec) -> None:
    without_rule = WINNER[1].model_copy(update={"thresholds": {"0.5": (0.5, 0.5)}})
    for winner in ((WINNER[0], without_rule), (without_rule, WINNER[0])):
        tuned = make_tuned_settings(spec, SearchResult(TRIALS, (winner,)))
        assert tuned.thresholds == {"0.5": (0.5, 0.5)}


def test_equal_records_give_equal_settings(spec: SearchSpec) -> None:
    assert make_tuned_settings(spec, RESULT) == make_tuned_settings(spec, RESULT)
    assert make_tuned_settings(spec, RESULT).finished_at == "2026-01-02T03:04:06+00:00"


# --- tuned.toml


def test_run_finds_written_settings(written: SearchSpec) -> None:
    tuned = make_tuned_settings(written, RESULT)
    assert read_tuned(written.folder / "tuned.toml") == tuned
    assert find_tuned(written.studies_folder.parent, tuned.protocol, "bert", "abc") == tuned


def test_repeated_writing_changes_no_file(written: SearchSpec) -> None:
    before = read_files(written.folder)
    assert write_results(written, RESULT) == make_tuned_settings(written, RESULT)
    assert read_files(written.folder) == before


def test_run_finds_settings_if_default_failed(spec: SearchSpec, tmp_path: Path) -> None:
    trials = (make_trial(0, state="failed", reason="diverged"), *TRIALS[1:])
    result = SearchResult(trials, RESULT.finalists)
    commit(spec, result)
    tuned = write_results(spec, result)
    assert find_tuned(tmp_path, tuned.protocol, "bert", "abc") == tuned


def test_header_describes_the_search(written: SearchSpec) -> None:
    text = (written.folder / "tuned.toml").read_text(encoding="utf-8")
    header = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for words in (
        "Settings of bert from hub",
        "protocol ffffffffffff (comments.csv)",
        "5 trials (1 pruned, 1 failed), sampler tpe, pruner median",
        "mean of 2 of 5 inner folds of the 2 rows that are not test rows",
        "Best score of the search 0.8000; of the default settings 0.5000",
        "trained again with 3 fresh seeds on 5 of 5 inner folds: 0.5000, 0.3500, "
        "0.3000 (default settings).",
    ):
        assert words in header
    assert "won" not in header


@pytest.mark.parametrize(
    ("finalists", "words"),
    [
        ((DEFAULT, RUNNER_UP), "0.3000 (default settings), 0.3500.\n# The default settings won"),
        ((WINNER, RUNNER_UP), "0.5000, 0.3500; the default settings failed."),
    ],
)
def test_header_reports_default_settings(
    spec: SearchSpec, finalists: tuple[Sequence[TrialRecord], ...], words: str
) -> None:
    commit(spec, SearchResult(TRIALS, finalists))
    write_results(spec, SearchResult(TRIALS, finalists))
    assert words in (spec.folder / "tuned.toml").read_text(encoding="utf-8")


def test_searched_settings_have_a_comment(
    written: SearchSpec,
) -> None:
    lines = (written.folder / "tuned.toml").read_text(encoding="utf-8").splitlines()
    comments = {line.split(" = ")[0]: line.split("  # ")[1] for line in lines if "  # " in line}
    assert comments == {
        "learning_rate": "searched 1e-05:0.001:log; default 3e-05",
        "epochs": "searched 2:8; default 4",
        "batch_size": "searched 8,16; default 16",
        "focal_gamma": "searched 0.5:3:loss=focal; default 2.0",
    }


@pytest.mark.parametrize("name", ['x"\ny = 1', "a\x1b[31m.csv", "毒.csv", "🤬", "\u2028", "\x7f"])
@pytest.mark.parametrize("place", ["name", "label"])
def test_hostile_name_does_not_break_the_file(tmp_path: Path, place: str, name: str) -> None:
    spec = make_spec(tmp_path, **{place: name})
    commit(spec, ONE_TRIAL)
    tuned = write_results(spec, ONE_TRIAL)
    assert read_tuned(spec.folder / "tuned.toml") == tuned
    text = (spec.folder / "tuned.toml").read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert tomllib.loads(text).keys() == tuned.model_dump().keys()


# --- trials.csv


def test_csv_has_every_trial_and_finalist(written: SearchSpec) -> None:
    table = read_csv(written)
    assert [(row["phase"], row["number"]) for row in table] == [
        *(("search", str(number)) for number in range(5)),
        *(("finalist", number) for number in "012346"),
    ]
    assert [row["state"] for row in table[:5]] == [
        "complete", "complete", "pruned", "failed", "complete",
    ]  # fmt: skip
    assert [row["score"] for row in table[:5]] == ["0.5", "0.6", "", "", "0.8"]
    assert [row["default"] for row in table[:2]] == ["True", "False"]
    assert [(row["folds"], row["seconds"]) for row in table[:1]] == [("0 1", "1.235")]


def test_csv_has_every_setting(written: SearchSpec) -> None:
    for row, trial in zip(read_csv(written), TRIALS, strict=False):
        settings = trial.settings.model_dump()
        assert {name: row[name] for name in settings} == {
            name: "" if value is None else str(value) for name, value in settings.items()
        }
        assert (row["uid"], row["finished"]) == (trial.uid, trial.finished_at)


def test_hostile_reason_is_one_csv_field(written: SearchSpec) -> None:
    assert read_csv(written)[3]["reason"] == r'ValueError: "a", b; \x1b[31mc'
    lines = (written.folder / CSV_FILE).read_bytes().splitlines()
    assert len(lines) == 1 + 5 + 6


# --- plots and all files


def test_plots_are_valid_svg(written: SearchSpec) -> None:
    paths = list(written.folder.glob("*.svg"))
    assert {path.name for path in paths} == PLOTS
    for path in paths:
        assert ET.parse(path).getroot().tag.endswith("svg")  # noqa: S314 - written by toxbench


def test_files_are_rewritten_from_records(written: SearchSpec, tmp_path: Path) -> None:
    first = read_files(written.folder)
    assert first.keys() == {"tuned.toml", CSV_FILE, *PLOTS}
    for folder in ("trials", "finalists-0"):
        shutil.copytree(written.folder / folder, tmp_path / folder)
    paths = write_study(tmp_path)
    assert {path.name for path in paths} == PLOTS
    assert {path.parent for path in paths} == {tmp_path}
    del first["tuned.toml"]
    assert read_files(tmp_path) == first


def test_no_file_has_a_comment(written: SearchSpec) -> None:
    assert not [name for name, data in read_files(written.folder).items() if b"prose" in data]


def test_one_trial_has_only_a_history_plot(spec: SearchSpec) -> None:
    commit(spec, ONE_TRIAL)
    write_results(spec, ONE_TRIAL)
    assert read_files(spec.folder).keys() == {"tuned.toml", CSV_FILE, "history.svg"}


def test_equal_scores_give_a_result(
    spec: SearchSpec,
) -> None:
    """All sampled trials score 1; the default settings are outside the space."""
    default = make_trial(0, 0.5, params={}, distributions={})
    result = SearchResult((default, *(make_trial(n, 1.0) for n in range(1, 5))), (WINNER,))
    commit(spec, result)
    assert write_results(spec, result).train == BEST


def test_damaged_record_is_a_storage_error(spec: SearchSpec) -> None:
    commit(spec)
    path = next((spec.folder / "trials").iterdir())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StorageError, match="damaged"):
        write_study(spec.folder)
