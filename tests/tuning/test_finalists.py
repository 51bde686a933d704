"""Who is trained again after a search, and who wins: scores are scripted, the rest is real."""

import random
import tomllib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

import toxbench
from toxbench.benchmark.trainer_factory import TrainerFactory
from toxbench.errors import CellsFailedError
from toxbench.settings import TrainSettings
from toxbench.tuning.definition import InnerData
from toxbench.tuning.trial import OnEpoch, Result

if TYPE_CHECKING:
    from tuning.conftest import Search

DEFAULT_EPOCHS = 4  # the searches draw one or two
Rule = Callable[[TrainSettings, int], float | None]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rule], None]:
    """Let settings and seed decide what a trial scores; None: it diverges."""

    def scripted(rule: Rule) -> None:
        def train(
            bench: TrainerFactory, data: InnerData, folds: Sequence[int], settings: TrainSettings,
            seed: int, on_epoch: OnEpoch,
        ) -> Result:  # fmt: skip
            score = rule(settings, seed)
            if score is None:
                raise CellsFailedError("the loss is not finite")
            thresholds = {"0.5": (0.5,) * len(data.comments.labels)}
            return Result((score,) * len(folds), thresholds)

        monkeypatch.setattr("toxbench.tuning.trial.train_on_folds", train)

    return scripted


def by_phase(default: tuple[float | None, ...], drawn: tuple[float | None, ...]) -> Rule:
    """Score default and drawn settings, in the search and with fresh seeds."""

    def rule(settings: TrainSettings, seed: int) -> float | None:
        scores = default if settings.epochs == DEFAULT_EPOCHS else drawn
        score = scores[seed != 10_001]
        # Higher rates are a little better: the drawn ones have an order.
        return None if score is None else score + settings.learning_rate

    return rule


def tuned_toml(search: "Search") -> dict[str, Any]:
    return tomllib.loads((search.study / "tuned.toml").read_text(encoding="utf-8"))


def test_the_default_settings_are_trained_again_though_they_are_the_worst(
    search: "Search", script: Callable[[Rule], None]
) -> None:
    script(by_phase(default=(0.1, 0.2), drawn=(0.5, 0.6)))
    search.tune()
    finalists = search.finalists
    assert [record.is_default for record in finalists] == [False, False, True]
    assert len({(record.seed, record.folds) for record in finalists}) == 1
    tuning = tuned_toml(search)["tuning"]
    assert tuning["default_average_precision"] == pytest.approx(0.2 + 3e-5)
    assert tuning["average_precision"] > 0.6
    assert (tuning["finalists"], tuning["default_won"]) == (3, False)


def test_default_settings_among_the_best_are_trained_again_once(
    search: "Search", script: Callable[[Rule], None]
) -> None:
    script(by_phase(default=(0.7, 0.2), drawn=(0.5, 0.6)))
    search.tune()
    assert [record.is_default for record in search.finalists] == [True, False]


def test_default_settings_that_win_are_said_to(
    search: "Search", script: Callable[[Rule], None]
) -> None:
    script(by_phase(default=(0.1, 0.8), drawn=(0.5, 0.6)))
    search.tune()
    tuned = tuned_toml(search)
    assert tuned["train"]["epochs"] == DEFAULT_EPOCHS
    assert tuned["tuning"]["default_won"]
    score = tuned["tuning"]["average_precision"]
    assert score == tuned["tuning"]["default_average_precision"] == pytest.approx(0.8 + 3e-5)
    assert "# The default settings won" in (search.study / "tuned.toml").read_text("utf-8")
    before = search.cells
    board = search.run_tuned(train={"selection": "last"})  # exactly the settings that won
    assert sorted(board["tuned"]) == [False, True]
    assert before.items() < search.cells.items()
    assert len(search.cells) == len(before) + 1
    assert sorted(toxbench.leaderboard(search.results)["tuned"]) == [False, True]


def test_default_settings_that_diverge_are_not_trained_again(
    search: "Search", script: Callable[[Rule], None]
) -> None:
    script(by_phase(default=(None, 0.9), drawn=(0.5, 0.6)))
    search.tune()
    assert search.trials[0].state == "failed"
    assert [record.is_default for record in search.finalists] == [False, False]
    tuning = tuned_toml(search)["tuning"]
    assert "default_average_precision" not in tuning
    assert not tuning["default_won"]


def test_default_settings_that_diverge_only_with_fresh_seeds_lose_only_themselves(
    search: "Search", script: Callable[[Rule], None]
) -> None:
    script(by_phase(default=(0.9, None), drawn=(0.5, 0.6)))
    search.tune()
    tuning = tuned_toml(search)["tuning"]
    assert (len(search.finalists), tuning["finalists"]) == (2, 1)
    assert "default_average_precision" not in tuning
    assert tuning["average_precision"] > 0.6


def test_where_all_others_diverge_with_fresh_seeds_the_default_settings_win(
    search: "Search", script: Callable[[Rule], None]
) -> None:
    script(by_phase(default=(0.1, 0.2), drawn=(0.5, None)))
    search.tune()
    assert tuned_toml(search)["tuning"]["default_won"]


@pytest.mark.parametrize("luck", range(2))
def test_tuned_settings_never_score_below_the_default_ones(
    search: "Search", script: Callable[[Rule], None], luck: int
) -> None:
    def rule(settings: TrainSettings, seed: int) -> float:
        return random.Random(f"{luck} {settings} {seed}").random()

    script(rule)
    search.tune(tune={"trials": 6, "finalists": 1, "finalist_seeds": 2, "inner_folds": 2})
    tuning = tuned_toml(search)["tuning"]
    assert tuning["average_precision"] >= tuning["default_average_precision"]
    by_default = [record.value for record in search.finalists if record.is_default]
    assert len(by_default) == 2
    assert tuning["default_average_precision"] == pytest.approx(sum(by_default) / 2)


def test_more_trials_train_no_finalist_twice(
    search: "Search", script: Callable[[Rule], None]
) -> None:
    trained: list[tuple[str, int]] = []

    def rule(settings: TrainSettings, seed: int) -> float:
        trained.append((settings.model_dump_json(), seed))
        return random.Random(f"{settings} {seed}").random()

    script(rule)
    for trials in (4, 4, 9):
        search.tune(tune={"trials": trials})
        assert len(set(trained)) == len(trained)
    assert len(search.trials) == 9
