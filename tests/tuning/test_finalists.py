"""The finalists of a search and the winner. Scores are scripted; everything else is real."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

import toxbench
from toxbench.benchmark.trainer_factory import TrainerFactory
from toxbench.data.protocol import Protocol
from toxbench.errors import CellsFailedError
from toxbench.settings import TrainSettings
from toxbench.tuning.trial import Configuration, OnEpoch, TrialResult

if TYPE_CHECKING:
    from tuning.conftest import Search

pytestmark = pytest.mark.slow

DEFAULT_EPOCHS = 4  # other trials have one or two
ScoreRule = Callable[[TrainSettings, int], float | None]  # settings, seed -> score


@pytest.fixture
def set_scores(monkeypatch: pytest.MonkeyPatch) -> Callable[[ScoreRule], None]:
    """Replace training by a rule that returns the score; None: the training diverges."""

    def patch(rule: ScoreRule) -> None:
        def train(
            factory: TrainerFactory, data: Protocol, configuration: Configuration, metric: str,
            on_epoch: OnEpoch,
        ) -> TrialResult:  # fmt: skip
            score = rule(configuration.settings, configuration.seed)
            if score is None:
                raise CellsFailedError("the loss is not finite")
            thresholds = {"0.5": (0.5,) * len(data.comments.labels)}
            return TrialResult((score,) * len(configuration.folds), thresholds)

        monkeypatch.setattr("toxbench.tuning.trial.train_on_folds", train)

    return patch


def by_phase(default: tuple[float | None, ...], sampled: tuple[float | None, ...]) -> ScoreRule:
    """Return a rule from the scores of default and sampled settings.

    Each pair has the score in the search and the score with fresh seeds.
    """

    def rule(settings: TrainSettings, seed: int) -> float | None:
        scores = default if settings.epochs == DEFAULT_EPOCHS else sampled
        score = scores[seed != 10_001]
        # Higher rates are slightly better, so that the sampled settings have an order.
        return None if score is None else score + settings.learning_rate

    return rule


def test_worst_default_settings_are_a_finalist(
    search: "Search", set_scores: Callable[[ScoreRule], None]
) -> None:
    set_scores(by_phase(default=(0.1, 0.2), sampled=(0.5, 0.6)))
    search.tune()
    finalists = search.finalists
    assert [record.is_default for record in finalists] == [False, False, True]
    assert len({(record.seed, record.folds) for record in finalists}) == 1
    tuning = search.tuned_toml["tuning"]
    assert tuning["default_score"] == pytest.approx(0.2 + 3e-5)
    assert tuning["score"] > 0.6
    assert (tuning["finalists"], tuning["default_won"]) == (3, False)


def test_best_default_settings_are_one_finalist(
    search: "Search", set_scores: Callable[[ScoreRule], None]
) -> None:
    set_scores(by_phase(default=(0.7, 0.2), sampled=(0.5, 0.6)))
    search.tune()
    assert [record.is_default for record in search.finalists] == [True, False]


def test_winning_default_settings_are_reported(
    search: "Search", set_scores: Callable[[ScoreRule], None]
) -> None:
    set_scores(by_phase(default=(0.1, 0.8), sampled=(0.5, 0.6)))
    search.tune()
    tuned = search.tuned_toml
    assert tuned["train"]["epochs"] == DEFAULT_EPOCHS
    assert tuned["tuning"]["default_won"]
    score = tuned["tuning"]["score"]
    assert score == tuned["tuning"]["default_score"] == pytest.approx(0.8 + 3e-5)
    assert "# The default settings won" in (search.study / "tuned.toml").read_text("utf-8")
    assert sorted(toxbench.load(search.results).leaderboard["tuned"]) == [False, True]


def test_diverged_default_settings_are_not_a_finalist(
    search: "Search", set_scores: Callable[[ScoreRule], None]
) -> None:
    set_scores(by_phase(default=(None, 0.9), sampled=(0.5, 0.6)))
    search.tune()
    assert search.trials[0].state == "failed"
    assert [record.is_default for record in search.finalists] == [False, False]
    tuning = search.tuned_toml["tuning"]
    assert "default_score" not in tuning
    assert not tuning["default_won"]


def test_default_settings_may_diverge_as_finalist(
    search: "Search", set_scores: Callable[[ScoreRule], None]
) -> None:
    set_scores(by_phase(default=(0.9, None), sampled=(0.5, 0.6)))
    search.tune()
    tuning = search.tuned_toml["tuning"]
    assert (len(search.finalists), tuning["finalists"]) == (2, 1)
    assert "default_score" not in tuning
    assert tuning["score"] > 0.6


def test_default_settings_win_if_others_diverge(
    search: "Search", set_scores: Callable[[ScoreRule], None]
) -> None:
    set_scores(by_phase(default=(0.1, 0.2), sampled=(0.5, None)))
    search.tune()
    assert search.tuned_toml["tuning"]["default_won"]


@pytest.mark.parametrize("random_seed", range(2))
def test_tuned_score_reaches_the_default_score(
    search: "Search", set_scores: Callable[[ScoreRule], None], random_seed: int
) -> None:
    def rule(settings: TrainSettings, seed: int) -> float:
        return random.Random(f"{random_seed} {settings} {seed}").random()

    set_scores(rule)
    search.tune(tune={"trials": 6, "finalists": 1, "finalist_seeds": 2, "inner_folds": 2})
    tuning = search.tuned_toml["tuning"]
    assert tuning["score"] >= tuning["default_score"]
    default_scores = [record.value for record in search.finalists if record.is_default]
    assert len(default_scores) == 2
    assert tuning["default_score"] == pytest.approx(sum(default_scores) / 2)


def test_no_finalist_is_trained_twice(
    search: "Search", set_scores: Callable[[ScoreRule], None]
) -> None:
    trainings: list[tuple[str, int]] = []

    def rule(settings: TrainSettings, seed: int) -> float:
        trainings.append((settings.model_dump_json(), seed))
        return random.Random(f"{settings} {seed}").random()

    set_scores(rule)
    for trials in (4, 4, 9):
        search.tune(tune={"trials": trials})
        assert len(set(trainings)) == len(trainings)
    assert len(search.trials) == 9
