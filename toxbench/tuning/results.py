"""Files of a finished search: tuned.toml, the trials as CSV, and plots as SVG."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from toxbench.evaluation.curves import trial_front
from toxbench.evaluation.definitions import OBJECTIVES, SEARCH_COSTS
from toxbench.records import TrialRecord, TunedSettings, TuningRecord
from toxbench.report.tuning import fanova_importances, study_plots
from toxbench.settings import INNER_FOLDS, TrainSettings
from toxbench.store.trials import TUNED_FILE, TrialStore, write_tuned
from toxbench.tuning.search import SearchResult
from toxbench.tuning.space import format_dimension
from toxbench.tuning.spec import SearchSpec
from toxbench.tuning.study import in_memory_study
from toxbench.util.atomic import write_atomically
from toxbench.util.text import count_of, escape_line

CSV_FILE = "trials.csv"


def write_results(spec: SearchSpec, result: SearchResult) -> TunedSettings:
    """Write all files into the study's folder; return the tuned settings.

    Raises:
        StorageError: the folder cannot be written.
    """
    tuned = make_tuned_settings(spec, result)
    path = spec.folder / TUNED_FILE
    write_tuned(path, tuned, _header_comments(spec, result, tuned), _setting_comments(spec))
    write_study(spec.folder)
    return tuned


def make_tuned_settings(spec: SearchSpec, result: SearchResult) -> TunedSettings:
    """Summarize a search; equal records give equal settings."""
    winner, default_index = result.finalists[0], result.default_index
    return TunedSettings(
        backbone=spec.candidate.name,
        protocol=spec.fingerprint,
        fold=spec.fold,
        finished_at=max(record.finished_at for group in result.finalists for record in group),
        weights=spec.candidate.weights.record,
        tuning=TuningRecord(
            study=spec.name,
            trials=len(result.trials),
            pruned_trials=sum(record.state == "pruned" for record in result.trials),
            failed_trials=sum(record.state == "failed" for record in result.trials),
            finalists=len(result.finalists),
            metric=spec.settings.metric,
            score=result.scores[0],
            default_score=None if default_index is None else result.scores[default_index],
            default_won=default_index == 0,
            picked_trial=spec.settings.pick,
        ),
        train=winner[0].settings,
        thresholds=_mean_thresholds([record.thresholds for record in winner]),
    )


def write_study(folder: Path) -> list[Path]:
    """Write a study's trials as CSV and its plots as SVG, from its records alone.

    Returns:
        the paths of the plots.

    Raises:
        StorageError: a record is damaged, or the folder cannot be written.
    """
    trials = TrialStore(folder / "trials").records()
    finalists = [
        record
        for path in sorted(folder.glob("finalists-*"))
        for record in TrialStore(path).records()
    ]
    write_atomically(folder / CSV_FILE, _format_csv(trials, finalists).encode("utf-8"))
    plots: list[Path] = []
    shares = fanova_importances(in_memory_study(trials))
    for name, svg in study_plots(trials, shares).items():
        plots.append(folder / f"{name}.svg")
        write_atomically(plots[-1], svg)
    return plots


def _format_csv(trials: Sequence[TrialRecord], finalists: Sequence[TrialRecord]) -> str:
    """Return one line per trial, with all settings, those that were not searched included."""
    buffer = io.StringIO()
    names = list(TrainSettings.model_fields)
    costs = next((list(record.costs) for record in trials if record.costs), [])
    front = {record.uid for record in trial_front(trials)}
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["phase", "number", "state", "default", "score",
         *(f"cost {name}" for name in costs), *(["on Pareto front"] if costs else []),
         "epochs", "seconds", "seed", "folds", *names, "reason", "finished", "uid"]
    )  # fmt: skip
    for phase, records in (("search", trials), ("finalist", finalists)):
        for record in records:
            settings = record.settings.model_dump()
            writer.writerow(
                [phase, record.number, record.state, record.is_default, record.value,
                 *(record.costs.get(name) for name in costs),
                 *([record.uid in front] if costs else []), record.epochs,
                 round(record.seconds, 3), record.seed, " ".join(map(str, record.folds)),
                 *(settings[name] for name in names), escape_line(record.reason),
                 record.finished_at, record.uid]
            )  # fmt: skip
    return buffer.getvalue()


def _mean_thresholds(
    seeds: Sequence[Mapping[str, tuple[float, ...]]],
) -> dict[str, tuple[float, ...]]:
    """Average each rule's thresholds over seeds; omit a rule that a seed lacks."""
    rules = [rule for rule in seeds[0] if all(rule in thresholds for thresholds in seeds)]
    return {
        rule: tuple(fmean(label) for label in zip(*(t[rule] for t in seeds), strict=True))
        for rule in rules
    }


def _header_comments(spec: SearchSpec, result: SearchResult, tuned: TunedSettings) -> list[str]:
    """Return the comment lines at the top of tuned.toml."""
    tuning, settings = tuned.tuning, spec.settings
    best = max(record.value for record in result.trials if record.value is not None)
    default = next((record.value for record in result.trials if record.is_default), None)
    rows = len(spec.data.comments)
    won = ["The default settings won: no other finalist scored higher."]
    picked = [f"Trial {tuning.picked_trial} of the Pareto front was picked by hand (--pick)."]
    return [
        f"Settings of {tuned.backbone} from {tuned.weights.label}, found by toxbench tune.",
        f"They hold for fold {spec.fold} of the protocol {spec.fingerprint[:12]} "
        f"({escape_line(spec.data.comments.name)}); use them with: toxbench run --tuned",
        f"{tuning.trials} trials ({tuning.pruned_trials} pruned, {tuning.failed_trials} failed), "
        f"sampler {settings.sampler}, pruner {settings.pruner}.",
        f"Score: {OBJECTIVES[settings.metric]} on inner validation rows, mean of "
        f"{settings.inner_folds} of {INNER_FOLDS} inner folds of the {rows} rows that are not "
        "test rows.",
        *(f"Minimized in addition: {name}, {SEARCH_COSTS[name]}." for name in settings.costs),
        f"Best score of the search {best:.4f}; of the default settings "
        f"{'none' if default is None else f'{default:.4f}'}.",
        f"Finalists, trained again with {count_of(settings.finalist_seeds, 'fresh seed')} on "
        f"{settings.finalist_folds} of {INNER_FOLDS} inner folds: {_format_scores(result)}.",
        *(won if tuning.default_won else []),
        *([] if tuning.picked_trial is None else picked),
    ]


def _format_scores(result: SearchResult) -> str:
    """List the finalists' scores, the best first, and mark that of the default settings."""
    default_index, scores = result.default_index, [f"{score:.4f}" for score in result.scores]
    if default_index is None:
        return f"{', '.join(scores)}; the default settings failed"
    scores[default_index] += " (default settings)"
    return ", ".join(scores)


def _setting_comments(spec: SearchSpec) -> dict[str, str]:
    """Return the comment after each searched setting: its dimension and its default value."""
    default = spec.candidate.settings.model_dump()
    return {
        name: f"searched {escape_line(format_dimension(dimension))}; default {default[name]}"
        for name, dimension in spec.space.items()
    }
