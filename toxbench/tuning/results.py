"""What a search leaves behind: tuned.toml, the whole study as CSV, and plots as SVG."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from toxbench.records import TrialRecord, TunedSettings, TuningRecord
from toxbench.report.tuning import fanova_importances, study_plots
from toxbench.settings import INNER_FOLDS, TrainSettings
from toxbench.store.trials import TUNED_FILE, TrialStore, write_tuned
from toxbench.tuning.definition import SearchSpec
from toxbench.tuning.search import SearchResult
from toxbench.tuning.space import described
from toxbench.tuning.study import in_memory_study
from toxbench.util.atomic import write_atomically
from toxbench.util.text import escape_line

CSV_FILE = "trials.csv"


def write_outcome(definition: SearchSpec, found: SearchResult) -> TunedSettings:
    """Write everything into the study's folder; return the tuned settings.

    Raises:
        StorageError: the folder cannot be written.
    """
    tuned = tuned_settings(definition, found)
    path = definition.folder / TUNED_FILE
    write_tuned(path, tuned, _remarks(definition, found, tuned), _origins(definition))
    write_study(definition.folder)
    return tuned


def tuned_settings(definition: SearchSpec, found: SearchResult) -> TunedSettings:
    """Sum up a search; the same records give the same settings."""
    winner, place = found.finalists[0], found.default_place
    return TunedSettings(
        backbone=definition.candidate.name,
        protocol=definition.fingerprint,
        finished_at=max(record.finished_at for group in found.finalists for record in group),
        weights=definition.candidate.weights.record,
        tuning=TuningRecord(
            study=definition.name,
            trials=len(found.trials),
            pruned_trials=sum(record.state == "pruned" for record in found.trials),
            failed_trials=sum(record.state == "failed" for record in found.trials),
            finalists=len(found.finalists),
            average_precision=found.scores[0],
            default_average_precision=None if place is None else found.scores[place],
            default_won=place == 0,
        ),
        train=winner[0].settings,
        thresholds=_mean_thresholds([record.thresholds for record in winner]),
    )


def write_study(folder: Path) -> list[Path]:
    """Write a study's trials as CSV and its plots as SVG, from its records alone.

    Returns:
        the plots.

    Raises:
        StorageError: a record is damaged, or the folder cannot be written.
    """
    trials = TrialStore(folder / "trials").records()
    finalists = [
        record
        for path in sorted(folder.glob("finalists-*"))
        for record in TrialStore(path).records()
    ]
    write_atomically(folder / CSV_FILE, _csv(trials, finalists).encode("utf-8"))
    plots: list[Path] = []
    shares = fanova_importances(in_memory_study(trials))
    for name, svg in study_plots(trials, shares).items():
        plots.append(folder / f"{name}.svg")
        write_atomically(plots[-1], svg)
    return plots


def _csv(trials: Sequence[TrialRecord], finalists: Sequence[TrialRecord]) -> str:
    """Write one line a trial; settings are whole, with what was not searched."""
    buffer = io.StringIO()
    names = list(TrainSettings.model_fields)
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["phase", "number", "state", "default", "score", "epochs", "seconds", "seed", "folds",
         *names, "reason", "finished", "uid"]
    )  # fmt: skip
    for phase, records in (("search", trials), ("finalist", finalists)):
        for record in records:
            settings = record.settings.model_dump()
            writer.writerow(
                [phase, record.number, record.state, record.is_default, record.value, record.epochs,
                 round(record.seconds, 3), record.seed, " ".join(map(str, record.folds)),
                 *(settings[name] for name in names), escape_line(record.reason),
                 record.finished_at, record.uid]
            )  # fmt: skip
    return buffer.getvalue()


def _mean_thresholds(
    seeds: Sequence[Mapping[str, tuple[float, ...]]],
) -> dict[str, tuple[float, ...]]:
    """Average each rule's thresholds over seeds; a rule that one of them lacks is left out."""
    rules = [rule for rule in seeds[0] if all(rule in thresholds for thresholds in seeds)]
    return {
        rule: tuple(fmean(label) for label in zip(*(t[rule] for t in seeds), strict=True))
        for rule in rules
    }


def _remarks(definition: SearchSpec, found: SearchResult, tuned: TunedSettings) -> list[str]:
    tuning, settings = tuned.tuning, definition.settings
    searched = max(record.value for record in found.trials if record.value is not None)
    default = next((record.value for record in found.trials if record.is_default), None)
    rows = len(definition.data.comments)
    elsewhere = " on other inner folds" if 2 * settings.inner_folds <= INNER_FOLDS else ""
    won = ["The default settings won: no other finalist scored higher."]
    return [
        f"Settings of {tuned.backbone} from {tuned.weights.label}, found by toxbench tune.",
        f"They hold for the protocol {definition.fingerprint[:12]} "
        f"({escape_line(definition.data.comments.name)}); use them with: toxbench run --tuned",
        f"{tuning.trials} trials ({tuning.pruned_trials} pruned, {tuning.failed_trials} failed), "
        f"sampler {settings.sampler}, pruner {settings.pruner}.",
        "Score: micro average precision on inner validation rows, mean of "
        f"{settings.inner_folds} of {INNER_FOLDS} inner folds of the {rows} rows that are not "
        "test rows.",
        f"Best score of the search {searched:.4f}; of the default settings "
        f"{'none' if default is None else f'{default:.4f}'}.",
        f"Finalists, trained again with fresh seeds{elsewhere}: {_fresh_scores(found)}.",
        *(won if tuning.default_won else []),
    ]


def _fresh_scores(found: SearchResult) -> str:
    """List the finalists' scores, the winner's first, and say which one is the default's."""
    place, scores = found.default_place, [f"{score:.4f}" for score in found.scores]
    if place is None:
        return f"{', '.join(scores)}; the default settings failed"
    scores[place] += " (default settings)"
    return ", ".join(scores)


def _origins(definition: SearchSpec) -> dict[str, str]:
    default = definition.candidate.settings.model_dump()
    return {
        name: f"searched {escape_line(described(dimension))}; default {default[name]}"
        for name, dimension in definition.space.items()
    }
