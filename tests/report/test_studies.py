"""What a search found, as tables and plots, and tuned rows on a leaderboard."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from support import make_audit

from toxbench import Table, TrainSettings
from toxbench.plugin.registry import Registry
from toxbench.ranking.rows import Leaderboard, Row, summarize_cells
from toxbench.records import (
    PARTS,
    CellKey,
    CellRecord,
    Cost,
    Environment,
    LabelScores,
    TrialRecord,
    TunedSettings,
    TuningRecord,
    WeightsRecord,
)
from toxbench.report.labels import label_table, label_tables
from toxbench.report.leaderboard import leaderboard_table, terminal_tables
from toxbench.report.tuning import importance_table, importances, study_plots, tuned_table
from toxbench.store.cells import FoldRows, ProtocolRecord
from toxbench.tuning.study import in_memory_study

UNIT = FloatDistribution(0.0, 1.0)
RATE = FloatDistribution(1e-5, 1e-3, log=True)
EPOCHS = IntDistribution(2, 8)
LOSS = CategoricalDistribution(("bce", "focal"))
SVG = "{http://www.w3.org/2000/svg}"


def make_trial(
    number: int,
    value: float | None,
    distributions: Mapping[str, BaseDistribution] | None = None,
    default: bool = False,
    **params: Any,
) -> TrialRecord:
    """Make a trial; one without a value was pruned after two epochs."""
    epochs = {1: 0.1, 2: 0.2} if value is None else {1: value / 2, 2: value}
    return TrialRecord(
        study="bert-1", uid=f"{number:040x}", number=number, is_default=default,
        state="pruned" if value is None else "complete", reason="", params=params,
        distributions={k: distribution_to_json(v) for k, v in (distributions or {}).items()},
        settings=TrainSettings(), seed=1, folds=(0,), value=value,
        scores=() if value is None else (value,), epoch_scores=epochs, epochs=2, seconds=1.5,
        thresholds={}, finished_at="2026-01-02T03:04:05+00:00",
    )  # fmt: skip


def make_study(count: int = 8, choices: CategoricalDistribution = LOSS) -> list[TrialRecord]:
    """Make a search whose score is the rate's doing: a default, drawn trials, a pruned one."""
    kinds = {"learning_rate": RATE, "epochs": EPOCHS, "loss": choices}
    trials = [make_trial(0, 0.3, {"epochs": EPOCHS}, default=True, epochs=4)]
    for number in range(1, count):
        share = (number * 5 % count) / count
        params = {
            "learning_rate": 1e-5 * 100**share,
            "epochs": 2 + number % 7,
            "loss": choices.choices[number % 2],
        }
        trials.append(make_trial(number, 0.4 + share / 2, kinds, **params))
    return [*trials, make_trial(count, None, kinds, **params)]


def plots(trials: Sequence[TrialRecord]) -> dict[str, bytes]:
    return study_plots(trials, importances(in_memory_study(trials)))


def words(svg: bytes) -> set[str]:
    """Parse a plot; return the texts that it shows."""
    root = ET.fromstring(svg)  # noqa: S314 - our own
    assert root.tag == f"{SVG}svg"
    return {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}


# --- importances


def test_what_the_scores_depend_on_is_the_most_important() -> None:
    shares = importances(in_memory_study(make_study(16)))
    assert next(iter(shares)) == "learning_rate"
    assert shares.keys() == {"learning_rate", "epochs", "loss"}
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_importances_are_the_same_for_equal_records() -> None:
    first, second = (importances(in_memory_study(make_study())) for _ in range(2))
    assert first == second
    assert list(first) == list(second)


def test_pruned_trials_do_not_count() -> None:
    trials = make_study()
    complete = [trial for trial in trials if trial.state == "complete"]
    assert importances(in_memory_study(trials)) == importances(in_memory_study(complete))


def test_hyperparameters_that_only_some_trials_have_are_left_out() -> None:
    kinds = {"epochs": EPOCHS, "focal_gamma": UNIT}
    trials = [
        make_trial(0, 0.1, kinds, epochs=2, focal_gamma=0.5),
        make_trial(1, 0.2, {"epochs": EPOCHS}, epochs=3),
        make_trial(2, 0.4, {"epochs": EPOCHS}, epochs=5),
    ]
    assert importances(in_memory_study(trials)).keys() == {"epochs"}


def test_a_hyperparameter_that_only_the_defaults_lack_is_kept() -> None:
    kinds = {"epochs": EPOCHS, "dropout": UNIT}
    trials = [
        make_trial(0, 0.1, {"epochs": EPOCHS}, default=True, epochs=2),
        *(make_trial(n, n / 10, kinds, epochs=2 + n, dropout=n / 10) for n in range(1, 5)),
    ]
    assert importances(in_memory_study(trials)).keys() == {"epochs", "dropout"}


NOTHING_TO_SAY: dict[str, list[TrialRecord]] = {
    "no_trials": [],
    "one": [make_trial(0, 0.5, {"a": UNIT}, a=0.5)],
    "pruned": [make_trial(n, None, {"a": UNIT}, a=n / 10) for n in range(3)],
    "equal_scores": [make_trial(n, 0.5, {"a": UNIT}, a=n / 10) for n in range(5)],
    "nothing_in_common": [
        make_trial(0, 0.1, {"a": UNIT}, a=0.1), make_trial(1, 0.2, {"b": UNIT}, b=0.2),
    ],
    # The default has another score but not the hyperparameter, so it tells nothing of it.
    "equal_but_for_the_default": [
        make_trial(0, 0.5, default=True),
        make_trial(1, 1.0, {"dropout": UNIT}, dropout=0.1),
        make_trial(2, 1.0, {"dropout": UNIT}, dropout=0.2),
    ],
    "one_with_it": [
        make_trial(0, 0.5, default=True), make_trial(1, 1.0, {"dropout": UNIT}, dropout=0.1),
    ],
    "one_value": [make_trial(n, n / 10, {"a": UNIT}, a=0.5) for n in range(4)],
    "defaults_alone": [
        make_trial(n, n / 10, {"a": UNIT}, default=True, a=0.5) for n in range(2)
    ],
}  # fmt: skip


@pytest.mark.parametrize("trials", NOTHING_TO_SAY.values(), ids=NOTHING_TO_SAY)
def test_where_there_is_nothing_to_compare_there_are_no_importances(
    trials: list[TrialRecord],
) -> None:
    assert importances(in_memory_study(trials)) == {}


def test_a_choice_of_one_explains_nothing() -> None:
    kinds = {"epochs": EPOCHS, "batch_size": CategoricalDistribution((16,))}
    trials = [make_trial(n, n / 10, kinds, epochs=2 + n, batch_size=16) for n in range(5)]
    assert importances(in_memory_study(trials)).get("batch_size", 0.0) == 0.0


# --- plots


@pytest.fixture(scope="module")
def drawn() -> dict[str, bytes]:
    """The plots of one search."""
    return plots(make_study())


def test_a_search_has_four_plots_with_their_hyperparameters(drawn: dict[str, bytes]) -> None:
    assert set(drawn) == {"history", "importance", "parallel-coordinates", "slices"}
    for name in ("importance", "parallel-coordinates", "slices"):
        assert {"learning_rate", "epochs", "loss"} <= words(drawn[name])
    for name in ("parallel-coordinates", "slices"):
        assert {"bce", "focal"} <= words(drawn[name])
    shown = words(drawn["history"])
    assert {"trial", "default settings", "best so far", "pruned"} <= shown


def test_equal_records_give_equal_plots_and_leave_matplotlib_alone(
    drawn: dict[str, bytes],
) -> None:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    before, figures = dict(mpl.rcParams), plt.get_fignums()
    assert plots(make_study()) == drawn
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == figures


def test_other_records_give_other_plots(drawn: dict[str, bytes]) -> None:
    other = plots(make_study(9))
    assert all(other[name] != drawn[name] for name in drawn)


@pytest.mark.parametrize("name", ["no_trials", "one", "pruned", "one_with_it"])
def test_without_importances_the_history_is_drawn_alone(name: str) -> None:
    drawn = study_plots(NOTHING_TO_SAY[name], {})
    assert set(drawn) == {"history"}
    assert "History of the search" in words(drawn["history"])


def test_a_trial_that_failed_at_once_does_not_hinder_the_plots() -> None:
    failed = make_trial(20, None).model_copy(update={"state": "failed", "epoch_scores": {}})
    assert "trial" in words(study_plots([*make_study(), failed], {})["history"])


def test_more_slices_than_fit_a_row_are_all_there() -> None:
    kinds: dict[str, BaseDistribution] = {f"setting_{i}": UNIT for i in range(6)}
    trials = [make_trial(n, n / 10, kinds, **dict.fromkeys(kinds, n / 7)) for n in range(3)]
    drawn = study_plots(trials, dict.fromkeys(kinds, 1 / 6))
    assert kinds.keys() <= words(drawn["slices"])


MARKUP = (
    "<script>alert('x')</script>",
    '"&amp;<a href="javascript:x">',
    "]]><![CDATA[",
    "--><svg onload=x>",
    r"$\frac{$",
    "$x$",
    r"\$a$b\$",
    "{0} %s",
)


@pytest.mark.parametrize("hostile", [MARKUP, ("\x1b[31mred",), ("a\x00b",), ("two\nlines",)])
def test_a_hostile_choice_is_text_in_a_plot_and_nothing_else(hostile: tuple[str, ...]) -> None:
    choices = (*hostile, "plain")
    kinds = {"loss": CategoricalDistribution(choices)}
    trials = [make_trial(n, n / 10, kinds, loss=choice) for n, choice in enumerate(choices)]
    drawn = study_plots(trials, {"loss": 1.0})
    for name in ("parallel-coordinates", "slices"):
        assert_inert(drawn[name])
        assert "plain" in words(drawn[name])
        assert hostile != MARKUP or set(MARKUP) <= words(drawn[name])


@pytest.mark.parametrize("hostile", [MARKUP, ("\x1b[31mred",), ("a\x00b",), ("two\nlines",)])
def test_a_hostile_hyperparameter_is_text_in_a_plot_and_nothing_else(
    hostile: tuple[str, ...],
) -> None:
    kinds = dict.fromkeys((*hostile, "plain"), UNIT)
    trials = [make_trial(n, n / 10, kinds, **dict.fromkeys(kinds, n / 7)) for n in range(3)]
    drawn = study_plots(trials, dict.fromkeys(kinds, 0.1))
    for name in ("importance", "parallel-coordinates", "slices"):
        assert_inert(drawn[name])
        assert "plain" in words(drawn[name])
        assert hostile != MARKUP or set(MARKUP) <= words(drawn[name])


def assert_inert(svg: bytes) -> None:
    """Check that a plot is one drawing without links or scripts."""
    kinds = [element.tag.rpartition("}")[2] for element in ET.fromstring(svg).iter()]  # noqa: S314
    assert kinds.count("svg") == 1
    assert not {"script", "a", "foreignObject", "image"} & {*kinds}


# --- tables


def make_tuned(reference: float | None = 1 / 3, **train: Any) -> TunedSettings:
    return TunedSettings(
        backbone="bert", protocol="f" * 64, finished_at="2026-01-02T03:04:05+00:00",
        weights=WeightsRecord(source="hub", label="hub", identity="abc"),
        tuning=make_tuning(0.66666, reference), train=TrainSettings(**train), thresholds={},
    )  # fmt: skip


def make_tuning(validation: float, reference: float | None = 1 / 3, **more: Any) -> TuningRecord:
    fields: dict[str, Any] = {
        "study": "bert-1", "trials": 20, "pruned_trials": 7, "failed_trials": 1, "finalists": 3,
        "average_precision": validation, "default_average_precision": reference,
        "default_won": False,
    }  # fmt: skip
    return TuningRecord(**(fields | more))


def test_only_the_settings_that_changed_are_in_the_table() -> None:
    tuned = make_tuned(learning_rate=1e-4 / 3, loss="focal", dropout=0.25)
    table = tuned_table(tuned, TrainSettings())
    assert table.headers == ("setting", "default", "tuned")
    assert table.rows == (
        ("learning_rate", "3e-05", "3.33e-05"),
        ("dropout", "None", "0.25"),
        ("loss", "bce", "focal"),
    )
    assert table.records[0] == {
        "setting": "learning_rate", "default": 3e-5, "tuned": 1e-4 / 3,
    }  # fmt: skip
    assert "bert: 20 trials, 7 pruned, 1 failed" in table.title


def test_the_note_of_tuned_settings_has_both_scores() -> None:
    assert re.search(r"0\.667; default settings.*: 0\.333", tuned_table_note(make_tuned()))
    assert "failed" in tuned_table_note(make_tuned(None))


def test_where_the_default_settings_won_a_note_says_so() -> None:
    tuning = make_tuning(1 / 3, default_won=True)
    won = make_tuned().model_copy(update={"tuning": tuning})
    table = tuned_table(won, TrainSettings())
    assert table.rows == ()
    assert table.notes[1].startswith("The default settings won")
    assert "The default settings won" in Registry.discover().report_format("plain").item.render(
        table
    )


def tuned_table_note(tuned: TunedSettings) -> str:
    (note,) = tuned_table(tuned, TrainSettings()).notes
    return note


def test_importances_are_rounded_in_rows_and_exact_in_records() -> None:
    table = importance_table("bert-1", 12, {"learning_rate": 2 / 3, "epochs": 1 / 3})
    assert table.rows == (("learning_rate", "0.667"), ("epochs", "0.333"))
    assert [record["importance"] for record in table.records] == [2 / 3, 1 / 3]
    assert table.title == "What mattered in bert-1 (12 complete trials)"
    assert "a hint, not a finding" in table.notes[0]


def test_without_importances_the_table_says_why() -> None:
    table = importance_table("bert-1", 1, {})
    assert table.rows == table.records == ()
    assert "Too few complete trials" in table.notes[0]


def test_a_folders_name_cannot_command_the_terminal() -> None:
    assert "\x1b" not in importance_table("bert\x1b[2J", 1, {}).title


@pytest.mark.parametrize("name", ["plain", "github", "latex", "html", "csv", "json"])
def test_every_format_writes_these_tables(name: str) -> None:
    render = Registry.discover().report_format(name).item.render
    shares = importances(in_memory_study(make_study()))
    tuned = make_tuned(epochs=7, loss="focal", dropout=0.25)
    for table in (
        tuned_table(tuned, TrainSettings()),
        tuned_table(make_tuned(), TrainSettings()),
        importance_table("bert-1", 8, shares),
        importance_table("bert-1", 0, {}),
    ):
        text = render(table)
        assert text
        for row in table.rows:
            assert row[0].replace("_", "") in text.replace("\\", "").replace("_", "")


# --- a leaderboard with tuned rows

PROTOCOL = ProtocolRecord(
    name="comments.csv", synthetic=False, fingerprint="f" * 64, data_fingerprint="d" * 64, rows=4,
    labels=("IsRude",), supports={"IsRude": 2}, test_supports=({"IsRude": 1},),
    folds=(FoldRows(train=(0, 1), validation=(2,), test=(3,)),), definitions={}, audit=make_audit(),
)  # fmt: skip
METRICS = (
    "micro_f1", "macro_f1", "subset_accuracy", "micro_precision", "micro_recall",
    "micro_average_precision",
)  # fmt: skip


def make_cell(
    digest: str,
    tuning: TuningRecord | None = None,
    seed: int = 0,
    test: float | None = 0.5,
    **settings: Any,
) -> CellRecord:
    """Make a cell of bert that scores ``test`` in every metric."""
    return CellRecord(
        key=CellKey(candidate="bert", digest=digest * 12, seed=seed), kind="backbone",
        distribution="toxbench", fingerprint="f" * 64, parameters=1,
        weights=WeightsRecord(source="hub", label="hub", identity="abc"),
        settings=TrainSettings(**settings), tuning=tuning,
        environment=Environment(
            device="cpu", device_name="", precision="fp32", threads=1, versions={}, commit=None
        ),
        cost=Cost(train_seconds=1.0, evaluation_seconds=1.0, comments_per_second=1.0,
                  peak_memory_bytes=1),
        epochs=(), best_epoch=1, truncated_share=0.0, thresholds={"0.5": (0.5,)},
        metrics={"0.5": {part: dict.fromkeys(METRICS, test) for part in PARTS}},
        per_label={"0.5": (LabelScores(
            label="IsRude", support=1, threshold=0.5, precision=0.5, recall=0.5, f1=0.5,
            average_precision=None, roc_auc=None, prevalence=0.5, mcc=0.0, brier=0.25,
            expected_calibration_error=0.0),)},
        has_constant_predictions=False,
    )  # fmt: skip


def board(*cells: CellRecord) -> Leaderboard:
    return summarize_cells(PROTOCOL, cells)


def names(table: Table) -> list[str]:
    return [row[0] for row in table.rows]


def row_of(leaderboard: Leaderboard, tuned: bool) -> Row:
    (row,) = [row for row in leaderboard.rows if (row.tuning is not None) == tuned]
    return row


TWO = board(
    make_cell("0", test=0.5),
    make_cell("1", make_tuning(0.75), test=0.625, epochs=7, learning_rate=1e-4),
)


def test_default_and_tuned_settings_are_two_rows_without_a_list_of_differences() -> None:
    assert names(leaderboard_table(TWO)) == ["bert (tuned)", "bert"]
    for table in terminal_tables(TWO):
        assert names(table) == ["bert (tuned)", "bert"]
    assert label_tables(TWO)[0].headers == ("label", "test positives", "bert (tuned)", "bert")


def test_optimism_is_validation_minus_test_and_only_tuned_rows_have_it() -> None:
    tuned, plain = (row_of(TWO, tuned).values for tuned in (True, False))
    assert tuned["validation_average_precision"] is not None
    assert tuned["optimism"] is not None
    assert tuned["validation_average_precision"].mean == 0.75
    assert tuned["optimism"].mean == 0.75 - 0.625
    assert plain["validation_average_precision"] is plain["optimism"] is None


def test_optimism_over_seeds_is_of_their_mean() -> None:
    cells = [make_cell("1", make_tuning(0.75), seed, test) for seed, test in ((0, 0.5), (1, 0.75))]
    row = row_of(board(*cells), tuned=True)
    assert row.values["optimism"] is not None
    assert (row.values["optimism"].mean, row.seeds) == (0.125, 2)
    assert row.values["optimism"].deviation == pytest.approx(0.03125**0.5)
    assert row.values["validation_average_precision"] is not None
    assert row.values["validation_average_precision"].deviation == 0.0


def test_records_say_which_rows_are_tuned() -> None:
    tuned, plain = leaderboard_table(TWO).records
    assert (tuned["candidate"], tuned["tuned"], tuned["optimism"]) == ("bert", True, 0.125)
    assert (plain["candidate"], plain["tuned"], plain["optimism"]) == ("bert", False, None)
    assert tuned.keys() == plain.keys()


def test_a_note_says_how_settings_were_found_and_what_they_promised_too_much() -> None:
    (note,) = [n for n in leaderboard_table(TWO).notes if "optimism" in n]
    assert note.startswith("bert (tuned): best of 20 trials (7 pruned, 1 failed)")
    assert "0.750 there with fresh seeds (0.333 with the default settings), 0.625 on test" in note
    assert note.endswith("validation-to-test optimism +0.125.")


def test_the_note_gives_the_default_score_only_where_it_is_of_fresh_seeds_too() -> None:
    def note(**more: Any) -> str:
        cell = make_cell("1", make_tuning(0.75, 0.5, **more), test=0.625)
        (said,) = [n for n in leaderboard_table(board(cell)).notes if "optimism" in n]
        return said

    assert "0.750 there with fresh seeds (0.500 with the default settings), 0.625" in note(
        default_won=False
    )
    assert "bert (tuned): the default settings, not beaten in 20 trials" in note(default_won=True)


def test_pessimism_has_a_minus() -> None:
    low = board(make_cell("1", make_tuning(0.25), test=0.5))
    assert any("optimism -0.250" in note for note in leaderboard_table(low).notes)


def test_without_a_tuned_row_no_note_speaks_of_tuning() -> None:
    assert not any("optimism" in note for note in leaderboard_table(board(make_cell("0"))).notes)


def test_a_tuned_row_without_average_precision_says_so() -> None:
    undefined = board(make_cell("1", make_tuning(0.75), test=None))
    assert row_of(undefined, tuned=True).values["optimism"] is None
    notes = leaderboard_table(undefined).notes
    assert "bert (tuned): average precision is undefined on these test rows." in notes


def test_two_searches_with_other_settings_are_told_apart() -> None:
    two = board(
        make_cell("1", make_tuning(0.75), test=0.6, epochs=7),
        make_cell("2", make_tuning(0.7), test=0.5, epochs=8),
        make_cell("0", test=0.4, epochs=4),
    )
    assert names(leaderboard_table(two)) == ["bert (tuned) [epochs=7]", "bert (tuned) [epochs=8]",
                                             "bert"]  # fmt: skip


def test_a_longer_search_that_finds_the_same_settings_does_not_break_the_table() -> None:
    two = board(
        make_cell("1", make_tuning(0.75), test=0.6, epochs=7),
        make_cell("2", make_tuning(0.75, trials=40), test=0.5, epochs=7),
    )
    assert len(set(names(leaderboard_table(two)))) == len(two.rows)
    table = label_table(two)
    assert {len(row) for row in table.rows} == {len(table.headers)}


@pytest.mark.parametrize("name", ["plain", "github", "latex", "html", "csv", "json"])
def test_every_format_writes_a_leaderboard_with_tuned_rows(name: str) -> None:
    text = Registry.discover().report_format(name).item.render(leaderboard_table(TWO))
    assert "tuned" in text
    assert "0.625" in text
