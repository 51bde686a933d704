"""Tables and plots of a search, and tuned rows on a leaderboard."""

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
from toxbench.report.leaderboard import leaderboard_table, leaderboard_tables
from toxbench.report.tuning import (
    fanova_importances,
    front_table,
    importance_table,
    study_plots,
    tuned_table,
)
from toxbench.store.cells import FoldRows, ProtocolRecord
from toxbench.tuning.study import in_memory_study

pytestmark = pytest.mark.slow

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
        settings=TrainSettings(), seed=1, folds=(0,), metric="headline", value=value,
        scores=() if value is None else (value,), epoch_scores=epochs, epochs=2, seconds=1.5,
        thresholds={}, finished_at="2026-01-02T03:04:05+00:00",
    )  # fmt: skip


def make_study(count: int = 8, choices: CategoricalDistribution = LOSS) -> list[TrialRecord]:
    """Make a search whose scores depend on the rate: default, sampled and pruned trials."""
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


def plot_study(trials: Sequence[TrialRecord]) -> dict[str, bytes]:
    return study_plots(trials, fanova_importances(in_memory_study(trials)))


def texts_in(svg: bytes) -> set[str]:
    """Return the texts of a plot."""
    root = ET.fromstring(svg)  # noqa: S314 - our own
    assert root.tag == f"{SVG}svg"
    return {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}


# --- importances


def test_decisive_hyperparameter_is_most_important() -> None:
    shares = fanova_importances(in_memory_study(make_study(16)))
    assert next(iter(shares)) == "learning_rate"
    assert shares.keys() == {"learning_rate", "epochs", "loss"}
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_importances_are_reproducible() -> None:
    first, second = (fanova_importances(in_memory_study(make_study())) for _ in range(2))
    assert first == second
    assert list(first) == list(second)


def test_importances_ignore_pruned_trials() -> None:
    trials = make_study()
    complete = [trial for trial in trials if trial.state == "complete"]
    assert fanova_importances(in_memory_study(trials)) == fanova_importances(
        in_memory_study(complete)
    )


def test_importances_need_common_hyperparameters() -> None:
    kinds = {"epochs": EPOCHS, "focal_gamma": UNIT}
    trials = [
        make_trial(0, 0.1, kinds, epochs=2, focal_gamma=0.5),
        make_trial(1, 0.2, {"epochs": EPOCHS}, epochs=3),
        make_trial(2, 0.4, {"epochs": EPOCHS}, epochs=5),
    ]
    assert fanova_importances(in_memory_study(trials)).keys() == {"epochs"}


def test_importances_ignore_missing_defaults() -> None:
    kinds = {"epochs": EPOCHS, "dropout": UNIT}
    trials = [
        make_trial(0, 0.1, {"epochs": EPOCHS}, default=True, epochs=2),
        *(make_trial(n, n / 10, kinds, epochs=2 + n, dropout=n / 10) for n in range(1, 5)),
    ]
    assert fanova_importances(in_memory_study(trials)).keys() == {"epochs", "dropout"}


UNINFORMATIVE: dict[str, list[TrialRecord]] = {
    "no_trials": [],
    "one": [make_trial(0, 0.5, {"a": UNIT}, a=0.5)],
    "pruned": [make_trial(n, None, {"a": UNIT}, a=n / 10) for n in range(3)],
    "equal_scores": [make_trial(n, 0.5, {"a": UNIT}, a=n / 10) for n in range(5)],
    "nothing_in_common": [
        make_trial(0, 0.1, {"a": UNIT}, a=0.1), make_trial(1, 0.2, {"b": UNIT}, b=0.2),
    ],
    # The default trial has another score, but not the hyperparameter.
    "equal_except_default": [
        make_trial(0, 0.5, default=True),
        make_trial(1, 1.0, {"dropout": UNIT}, dropout=0.1),
        make_trial(2, 1.0, {"dropout": UNIT}, dropout=0.2),
    ],
    "one_with_it": [
        make_trial(0, 0.5, default=True), make_trial(1, 1.0, {"dropout": UNIT}, dropout=0.1),
    ],
    "one_value": [make_trial(n, n / 10, {"a": UNIT}, a=0.5) for n in range(4)],
    "only_defaults": [
        make_trial(n, n / 10, {"a": UNIT}, default=True, a=0.5) for n in range(2)
    ],
}  # fmt: skip


@pytest.mark.parametrize("trials", UNINFORMATIVE.values(), ids=UNINFORMATIVE)
def test_uninformative_trials_have_no_importances(trials: list[TrialRecord]) -> None:
    assert fanova_importances(in_memory_study(trials)) == {}


def test_single_choice_has_no_importance() -> None:
    kinds = {"epochs": EPOCHS, "batch_size": CategoricalDistribution((16,))}
    trials = [make_trial(n, n / 10, kinds, epochs=2 + n, batch_size=16) for n in range(5)]
    assert fanova_importances(in_memory_study(trials)).get("batch_size", 0.0) == 0.0


# --- plots


@pytest.fixture(scope="module")
def plots() -> dict[str, bytes]:
    """Plots of one search."""
    return plot_study(make_study())


def test_search_has_four_plots(plots: dict[str, bytes]) -> None:
    assert set(plots) == {"history", "importance", "parallel-coordinates", "slices"}
    for name in ("importance", "parallel-coordinates", "slices"):
        assert {"learning_rate", "epochs", "loss"} <= texts_in(plots[name])
    for name in ("parallel-coordinates", "slices"):
        assert {"bce", "focal"} <= texts_in(plots[name])
    history = texts_in(plots["history"])
    assert {"trial", "default settings", "best so far", "pruned"} <= history


def test_plots_are_reproducible_without_side_effects(plots: dict[str, bytes]) -> None:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    before, figures = dict(mpl.rcParams), plt.get_fignums()
    assert plot_study(make_study()) == plots
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == figures


def test_plots_depend_on_records(plots: dict[str, bytes]) -> None:
    longer = plot_study(make_study(9))
    assert all(longer[name] != plots[name] for name in plots)


@pytest.mark.parametrize("name", ["no_trials", "one", "pruned", "one_with_it"])
def test_only_history_without_importances(name: str) -> None:
    plots = study_plots(UNINFORMATIVE[name], {})
    assert set(plots) == {"history"}
    assert "Optimization history" in texts_in(plots["history"])


def test_failed_trial_is_plotted_without_score() -> None:
    failed = make_trial(20, None).model_copy(update={"state": "failed", "epoch_scores": {}})
    assert "trial" in texts_in(study_plots([*make_study(), failed], {})["history"])


def with_gap(trial: TrialRecord, gap: float) -> TrialRecord:
    return trial.model_copy(update={"costs": {"gap": gap}})


def test_front_has_a_plot_and_a_table() -> None:
    points = [(0.3, 0.1), (0.5, 0.2), (0.4, 0.2), (0.6, 0.3), (0.6, 0.3)]
    trials = [with_gap(make_trial(n, score), gap) for n, (score, gap) in enumerate(points)]
    trials.append(make_trial(5, None))
    assert {"0", "1", "3, 4"} <= texts_in(study_plots(trials, {})["front"])
    table = front_table("bert-1", trials)
    assert [(r["trial"], r["score"], r["gap"]) for r in table.records] == [
        (3, 0.6, 0.3), (4, 0.6, 0.3), (1, 0.5, 0.2), (0, 0.3, 0.1),
    ]  # fmt: skip
    assert "no test row is used" in table.notes[1]


def test_slices_fill_several_rows() -> None:
    kinds: dict[str, BaseDistribution] = {f"setting_{i}": UNIT for i in range(6)}
    trials = [make_trial(n, n / 10, kinds, **dict.fromkeys(kinds, n / 7)) for n in range(3)]
    plots = study_plots(trials, dict.fromkeys(kinds, 1 / 6))
    assert kinds.keys() <= texts_in(plots["slices"])


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
def test_hostile_choice_is_escaped_in_plots(hostile: tuple[str, ...]) -> None:
    choices = (*hostile, "plain")
    kinds = {"loss": CategoricalDistribution(choices)}
    trials = [make_trial(n, n / 10, kinds, loss=choice) for n, choice in enumerate(choices)]
    plots = study_plots(trials, {"loss": 1.0})
    for name in ("parallel-coordinates", "slices"):
        assert_inert(plots[name])
        assert "plain" in texts_in(plots[name])
        assert hostile != MARKUP or set(MARKUP) <= texts_in(plots[name])


@pytest.mark.parametrize("hostile", [MARKUP, ("\x1b[31mred",), ("a\x00b",), ("two\nlines",)])
def test_hostile_hyperparameter_is_escaped_in_plots(hostile: tuple[str, ...]) -> None:
    kinds = dict.fromkeys((*hostile, "plain"), UNIT)
    trials = [make_trial(n, n / 10, kinds, **dict.fromkeys(kinds, n / 7)) for n in range(3)]
    plots = study_plots(trials, dict.fromkeys(kinds, 0.1))
    for name in ("importance", "parallel-coordinates", "slices"):
        assert_inert(plots[name])
        assert "plain" in texts_in(plots[name])
        assert hostile != MARKUP or set(MARKUP) <= texts_in(plots[name])


def assert_inert(svg: bytes) -> None:
    """Check that a plot is one SVG without links or scripts."""
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
        "metric": "headline", "score": validation, "default_score": reference,
        "default_won": False,
    }  # fmt: skip
    return TuningRecord(**(fields | more))


def test_table_has_only_changed_settings() -> None:
    tuned = make_tuned(learning_rate=1e-4 / 3, loss="focal", dropout=0.25)
    table = tuned_table(tuned, TrainSettings())
    assert table.headers == ("setting", "default", "tuned")
    assert table.rows == (
        ("learning_rate", "3e-05", "3.33e-05"),
        ("dropout", "unset", "0.25"),
        ("loss", "bce", "focal"),
    )
    assert table.records[0] == {
        "setting": "learning_rate", "default": 3e-5, "tuned": 1e-4 / 3,
    }  # fmt: skip
    assert "bert: 20 trials, 7 pruned, 1 failed" in table.title


def test_note_has_tuned_and_default_scores() -> None:
    assert re.search(r"0\.667; default settings.*: 0\.333", tuned_table_note(make_tuned()))
    assert "failed" in tuned_table_note(make_tuned(None))


def test_note_if_default_settings_won() -> None:
    tuning = make_tuning(1 / 3, default_won=True)
    tuned = make_tuned().model_copy(update={"tuning": tuning})
    table = tuned_table(tuned, TrainSettings())
    assert table.rows == ()
    assert table.notes[1].startswith("The default settings won")
    assert "The default settings won" in Registry.discover().report_format("plain").item.render(
        table
    )


def tuned_table_note(tuned: TunedSettings) -> str:
    (note,) = tuned_table(tuned, TrainSettings()).notes
    return note


def test_importance_records_are_unrounded() -> None:
    table = importance_table("bert-1", 12, {"learning_rate": 2 / 3, "epochs": 1 / 3})
    assert table.rows == (("learning_rate", "0.667"), ("epochs", "0.333"))
    assert [record["importance"] for record in table.records] == [2 / 3, 1 / 3]
    assert table.title == "Hyperparameter importance in bert-1 (12 complete trials)"
    assert "only a hint" in table.notes[0]


def test_empty_importance_table_has_reason() -> None:
    table = importance_table("bert-1", 1, {})
    assert table.rows == table.records == ()
    assert "Too few complete trials" in table.notes[0]


def test_study_name_is_escaped() -> None:
    assert "\x1b" not in importance_table("bert\x1b[2J", 1, {}).title


@pytest.mark.parametrize("name", ["plain", "github", "latex", "html", "csv", "json"])
def test_all_formats_write_tuning_tables(name: str) -> None:
    render = Registry.discover().report_format(name).item.render
    shares = fanova_importances(in_memory_study(make_study()))
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
    audit=make_audit(), folds=(FoldRows(train=(0, 1), validation=(2,), test=(3,)),),
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
    """Make a cell of bert in which every metric is ``test``."""
    return CellRecord(
        key=CellKey(candidate="bert", digest=digest * 12, seed=seed), kind="backbone",
        stochastic=True, distribution="toxbench 1", fingerprint="f" * 64, parameters=1,
        weights=WeightsRecord(source="hub", label="hub", identity="abc"),
        settings=TrainSettings(**settings), tuning=tuning,
        environment=Environment(
            device="cpu", device_name="", precision="fp32", threads=1, versions={}, commit=None
        ),
        cost=Cost(train_seconds=1.0, evaluation_seconds=1.0, comments_per_second=1.0,
                  peak_memory_bytes=1),
        epochs=(), truncated_share=0.0, thresholds={"0.5": (0.5,)}, versions={},
        metrics={"0.5": {part: dict.fromkeys(METRICS, test) for part in PARTS}},
        per_label={"0.5": (LabelScores(
            label="IsRude", support=1, threshold=0.5, precision=0.5, recall=0.5, f1=0.5,
            average_precision=None, roc_auc=None, prevalence=0.5, mcc=0.0, brier=0.25,
            expected_calibration_error=0.0),)},
        has_constant_predictions=False,
    )  # fmt: skip


def make_board(*cells: CellRecord) -> Leaderboard:
    return summarize_cells(PROTOCOL, cells)


def names(table: Table) -> list[str]:
    return [row[0] for row in table.rows]


def row_of(leaderboard: Leaderboard, tuned: bool) -> Row:
    (row,) = [row for row in leaderboard.rows if (row.tuning is not None) == tuned]
    return row


TWO = make_board(
    make_cell("0", test=0.5),
    make_cell("1", make_tuning(0.75), test=0.625, epochs=7, learning_rate=1e-4),
)


def test_tuned_row_is_named_without_settings() -> None:
    assert names(leaderboard_table(TWO)) == ["bert (tuned)", "bert"]
    for table in leaderboard_tables(TWO):
        assert names(table) == ["bert (tuned)", "bert"]
    assert label_tables(TWO)[0].headers == ("label", "positive test rows", "bert (tuned)", "bert")


def test_only_tuned_rows_have_a_promised_gain() -> None:
    tuned, plain = (row_of(TWO, tuned) for tuned in (True, False))
    assert tuned.mean("promised_gain") == 0.75 - 1 / 3
    assert plain.values["promised_gain"] is None


def test_records_mark_tuned_rows() -> None:
    tuned, plain = leaderboard_table(TWO).records
    promised = 0.75 - 1 / 3
    assert (tuned["candidate"], tuned["tuned"], tuned["promised_gain"]) == ("bert", True, promised)
    assert (plain["candidate"], plain["tuned"], plain["promised_gain"]) == ("bert", False, None)
    assert tuned.keys() == plain.keys()


def tuning_note(*cells: CellRecord) -> str:
    (text,) = [n for n in leaderboard_table(make_board(*cells)).notes if "promised" in n]
    return text


def test_note_has_promised_and_realised_gain() -> None:
    ap = "micro_average_precision"
    note = tuning_note(
        make_cell("0", test=0.5), make_cell("1", make_tuning(0.75, metric=ap), test=0.625)
    )
    assert note.startswith("bert (tuned): the best settings of 20 trials (7 pruned, 1 failed).")
    assert "in the micro average precision: promised +0.417 (inner validation rows" in note
    assert "realised +0.125 (test rows)" in note


def test_gain_of_headlines_is_mean_of_their_gains() -> None:
    default, tuned = make_cell("0"), make_cell("1", make_tuning(0.25))
    default.metrics["0.5"]["test"] |= {"micro_f1": 0.5, "subset_accuracy": 0.25}
    tuned.metrics["0.5"]["test"] |= {"micro_f1": 0.625, "subset_accuracy": 0.125}
    note = tuning_note(default, tuned)
    assert "in the mean of micro-F1 and subset accuracy: promised -0.083" in note
    assert "realised +0.000" in note


def test_gain_is_unknown_without_default_row() -> None:
    assert "realised unknown" in tuning_note(make_cell("1", make_tuning(0.75)))
    assert "promised unknown" in tuning_note(make_cell("1", make_tuning(0.75, None)))


def test_note_reports_winning_default_settings() -> None:
    note = tuning_note(make_cell("1", make_tuning(0.75, 0.75, default_won=True)))
    assert "bert (tuned): the default settings, without an improvement in 20 trials" in note


def test_note_names_the_picked_trial() -> None:
    note = tuning_note(make_cell("1", make_tuning(0.75, picked_trial=7)))
    assert "bert (tuned): trial 7 of 20 trials (7 pruned, 1 failed), picked from the" in note


def test_untuned_leaderboard_has_no_tuning_note() -> None:
    notes = leaderboard_table(make_board(make_cell("0"))).notes
    assert not any("promised" in note for note in notes)


def test_two_searches_have_distinct_names() -> None:
    two = make_board(
        make_cell("1", make_tuning(0.75), test=0.6, epochs=7),
        make_cell("2", make_tuning(0.7), test=0.5, epochs=8),
        make_cell("0", test=0.4, epochs=4),
    )
    assert names(leaderboard_table(two)) == ["bert (tuned) [epochs=7]", "bert (tuned) [epochs=8]",
                                             "bert"]  # fmt: skip


def test_equal_tuned_settings_have_distinct_names() -> None:
    two = make_board(
        make_cell("1", make_tuning(0.75), test=0.6, epochs=7),
        make_cell("2", make_tuning(0.75, trials=40), test=0.5, epochs=7),
    )
    assert len(set(names(leaderboard_table(two)))) == len(two.rows)
    table = label_table(two)
    assert {len(row) for row in table.rows} == {len(table.headers)}


@pytest.mark.parametrize("name", ["plain", "github", "latex", "html", "csv", "json"])
def test_all_formats_write_tuned_rows(name: str) -> None:
    text = Registry.discover().report_format(name).item.render(leaderboard_table(TWO))
    assert "tuned" in text
    assert "0.625" in text
