"""Tables of one candidate: summary, settings, cells, curves, labels, thresholds and failures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import fmean

from toxbench.errors import SettingsError, did_you_mean
from toxbench.evaluation.definitions import HALF, HEADLINES, OBJECTIVES, PER_LABEL
from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import CandidateKey, Leaderboard, Row, candidate_key, mean_known
from toxbench.records import CellRecord, EpochRecord, FailureRecord, Part
from toxbench.report.labels import mean_label_scores, tested_labels
from toxbench.report.notes import GAP_TITLES
from toxbench.report.tables import Record, Value, records_table
from toxbench.settings import TrainSettings
from toxbench.util.many_labels import ShownLabels
from toxbench.util.text import count_of, escape_line, format_millions, format_value

_SCORED_PARTS: tuple[Part, ...] = ("test", "train")
_CELL_NOTE = "A cell is one training run: one seed on one fold."
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Candidate:
    """The stored results of one candidate.

    Attributes:
        name: as shown on the leaderboard.
        row: of the leaderboard; None if no seed has every fold.
        cells: with a result, sorted by fold and seed.
        failures: cells without a result.
        labels: of the table.
        shown_labels: those with a row in a table.
        references: name -> settings to compare with, such as the default settings.
    """

    name: str
    row: Row | None
    cells: tuple[CellRecord, ...]
    failures: tuple[FailureRecord, ...]
    labels: tuple[str, ...]
    shown_labels: ShownLabels
    references: Mapping[str, TrainSettings]


def find_candidate(
    board: Leaderboard, cells: Iterable[CellRecord], failures: Iterable[FailureRecord], name: str
) -> Candidate:
    """Return the candidate with a name of the leaderboard, even if all of its cells failed.

    Failures of cells that have a result are ignored.

    Raises:
        SettingsError: no candidate or several have this name.
    """
    stored = sorted(cells, key=lambda cell: (cell.key.fold, cell.key.seed))
    stored_keys = {cell.key for cell in stored}
    failed = [record for record in failures if record.key not in stored_keys]
    rows = {row.key: row for row in board.rows}
    cell_keys = stored_keys | {record.key for record in failed}
    keys = sorted(set(map(candidate_key, cell_keys)))
    key_of = dict(zip(_display_names(keys, rows), keys, strict=True))
    display_name = _match_name(name.removesuffix(" (constant!)"), list(key_of), keys)
    key = key_of[display_name]
    return Candidate(
        name=display_name,
        row=rows.get(key),
        cells=tuple(cell for cell in stored if candidate_key(cell.key) == key),
        failures=tuple(record for record in failed if candidate_key(record.key) == key),
        labels=board.protocol.labels,
        shown_labels=tested_labels(board.protocol),
        references={},
    )


def mean_epochs(cells: Iterable[CellRecord]) -> list[EpochRecord]:
    """Average each epoch over the cells that have it; a score is None if no cell has it."""
    return [
        EpochRecord(
            epoch=number,
            step=epochs[0].step,
            train_loss=fmean(epoch.train_loss for epoch in epochs),
            validation={
                name: mean_known(epoch.validation.get(name) for epoch in epochs)
                for name in ("loss", "micro_f1", "micro_average_precision")
            },
            seconds=fmean(epoch.seconds for epoch in epochs),
        )
        for number, column in enumerate(zip_longest(*(cell.epochs for cell in cells)), start=1)
        if (epochs := [epoch for epoch in column if epoch is not None])
    ]


def sparkline(values: Sequence[object]) -> str:
    """Draw numbers as bars of eight heights; "" for fewer than two numbers or a missing one."""
    numbers = [value for value in values if isinstance(value, int | float)]
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    if len(numbers) < 2 or len(numbers) < len(values):
        return ""
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return f"{''.join(_BARS[round((n - low) / step)] for n in numbers)} ({low:.3f} to {high:.3f})"


def summary_table(candidate: Candidate) -> Table:
    """Return the origin, the scores and the cost of a candidate."""
    row, cells = candidate.row, candidate.cells
    properties = (
        _origin(candidate) | (_scores(row) if row else {}) | (_cost(cells) if cells else {})
    )
    records: list[Record] = [{"property": name, "value": v} for name, v in properties.items()]
    notes = []
    if row and row.constant:
        notes.append("Predicts the same labels for every test row.")
    if row is None:
        notes.append("Not on the leaderboard: no seed has a result for every fold.")
    if row and row.uncertainty:
        notes.append(_interval_note(row))
    return records_table(candidate.name, records, notes, text=_cell_text)


def settings_table(candidate: Candidate) -> Table:
    """Return the settings, and how the default or the tuned settings differ."""
    values = candidate.cells[0].all_settings if candidate.cells else {}
    references = {name: other.model_dump() for name, other in candidate.references.items()}
    records: list[Record] = [
        {"setting": setting, "value": value}
        | {
            name: "same" if reference[setting] == value else reference[setting]
            for name, reference in references.items()
        }
        for setting, value in values.items()
    ]
    notes = [] if values else ["No settings: a baseline without any, or no cell has a result."]
    return records_table("Settings", records, notes, ("setting", "value", *references), text=str)


def cells_table(candidate: Candidate) -> Table:
    """Return the scores of each cell."""
    by_steps = any(e.step is not None for cell in candidate.cells for e in cell.epochs)
    unit = "evaluation" if by_steps else "epoch"
    records: list[Record] = [
        {
            "fold": cell.key.fold,
            "seed": cell.key.seed,
            **{f"{part} {title}": cell.metrics[HALF][part][name]
               for part in _SCORED_PARTS for name, title in HEADLINES.items()},
            f"{unit}s": len(cell.epochs) or None,
            "train seconds": cell.cost.train_seconds,
            "micro-batch size": cell.micro_batch,
        }
        for cell in candidate.cells
    ]  # fmt: skip
    title, notes = "Scores of each cell at threshold 0.5", [_CELL_NOTE]
    return records_table(title, records, notes, ("fold", "seed"), keys=2, text=_cell_text)


def curves_table(candidate: Candidate) -> Table:
    """Return train loss and validation scores of each epoch, mean over cells."""
    records = [_epoch_record(e) for e in mean_epochs(candidate.cells)]
    notes = [
        f"{name}: {bars}"
        for name in ("train loss", "validation micro average precision")
        if (bars := sparkline([record[name] for record in records]))
    ]
    notes += [] if records else ["No learning curve: no stored cell was trained in epochs."]
    title = "Learning curves, mean over cells"
    return records_table(title, records, notes, ("epoch",), text=_cell_text)


def labels_table(candidate: Candidate) -> Table:
    """Return each label on the test rows, mean over cells whose fold has a positive row of it."""
    records = [
        _label_record(label, candidate.cells, number)
        for number, label in enumerate(candidate.labels if candidate.cells else ())
    ]
    notes = [
        "Precision, recall and F1 are at threshold 0.5 unless the column title has another one. "
        "The per-label threshold is chosen on validation rows."
    ]
    title = "Scores of each label on test rows, mean over cells"
    return records_table(
        title, records, notes, ("label",), text=_cell_text,
        shown=candidate.shown_labels if records else None,
    )  # fmt: skip


def thresholds_table(candidate: Candidate) -> Table:
    """Return the thresholds of each rule and the test scores at them."""
    cells = candidate.cells
    rules = list(dict.fromkeys(rule for cell in cells for rule in cell.thresholds))
    records = [
        _threshold_record([cell for cell in cells if rule in cell.thresholds], rule)
        for rule in rules
    ]
    title = "Scores on test rows by threshold rule, mean over cells"
    return records_table(title, records, headers=("threshold rule",), text=_cell_text)


def failures_table(candidate: Candidate) -> Table:
    """Return the cells without a result, with the reason of the failure."""
    records: list[Record] = [
        {
            "fold": record.key.fold,
            "seed": record.key.seed,
            "kind": escape_line(record.kind),
            "reason": escape_line(record.reason),
            "time": record.failed_at,
        }
        for record in candidate.failures
    ]
    retry = "To retry these cells, repeat the toxbench command that computed them."
    notes = [retry] if records else ["No cell failed."]
    headers = ("fold", "seed", "kind", "reason", "time")
    return records_table("Failed cells", records, notes, headers, keys=2, text=_cell_text)


TABLES: Mapping[str, Callable[[Candidate], Table]] = {
    "summary": summary_table,
    "settings": settings_table,
    "cells": cells_table,
    "curves": curves_table,
    "labels": labels_table,
    "thresholds": thresholds_table,
    "failures": failures_table,
}


def _display_names(keys: Sequence[CandidateKey], rows: Mapping[CandidateKey, Row]) -> list[str]:
    """Return leaderboard names; a candidate without a row has its digest if the name repeats."""
    names = [name for name, _ in keys]
    return [
        rows[key].name
        if key in rows
        else f"{key[0]} #{key[1][:6]}"
        if names.count(key[0]) > 1
        else key[0]
        for key in keys
    ]


def _match_name(name: str, display_names: list[str], keys: Sequence[CandidateKey]) -> str:
    """Return the display name that equals ``name``, or the only one of a candidate so named."""
    if name in display_names:
        return name
    matches = [text for text, key in zip(display_names, keys, strict=True) if key[0] == name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        choices = ", ".join(f"'{match}'" for match in sorted(matches))
        raise SettingsError(f"several candidates are called {name!r}; choose one of: {choices}")
    available = ", ".join(display_names) or "none yet"
    hint = did_you_mean(name, {*display_names, *(candidate for candidate, _ in keys)})
    raise SettingsError(f"no candidate is called {name!r}{hint}; candidates: {available}")


def _origin(candidate: Candidate) -> dict[str, str]:
    row, cells = candidate.row, candidate.cells
    properties = {"cells": f"{len(cells)} stored, {len(candidate.failures)} failed"}
    if row and row.tier is not None:
        properties["tier"] = str(row.tier)
    if not cells:
        return properties
    first = cells[0]
    properties |= {
        "kind": first.kind,
        "distribution": first.distribution,
        "seeds": _join_distinct(cell.key.seed for cell in cells),
        "folds": _join_distinct(cell.key.fold for cell in cells),
    }
    if first.weights:
        properties["initial weights"] = f"{first.weights.label} ({first.weights.identity[:12]})"
        properties["parameters"] = format_millions(first.parameters)
    if first.tuning:
        tuning = first.tuning
        properties["tuning"] = (
            f"{tuning.trials} trials, {tuning.pruned_trials} pruned, "
            f"{tuning.failed_trials} failed; {OBJECTIVES[tuning.metric]} on inner validation rows "
            f"{tuning.score:.3f}"
        )
    environment = first.environment
    threads = count_of(environment.threads, "thread")
    properties["computed on"] = f"{environment.device_name}, {environment.precision}, {threads}"
    if first.truncated_share:
        properties["truncated comments"] = f"{first.truncated_share:.1%} at max_length"
    return properties


def _scores(row: Row) -> dict[str, str]:
    def text(name: str) -> str:
        statistic, uncertainty = row.values[name], row.uncertainty.get(name)
        interval = f" [{uncertainty.low:.3f}, {uncertainty.high:.3f}]" if uncertainty else ""
        return f"{statistic.mean:.3f}{interval}" if statistic else "-"

    scores = {title: text(name) for name, title in HEADLINES.items()}
    return scores | {title: text(name) for name, title in GAP_TITLES.items()}


def _interval_note(row: Row) -> str:
    is_untested = row.stochastic and row.seeds == 1
    source = "test rows only, because there is one seed" if is_untested else "test rows and seeds"
    return f"[low, high] is the 95 % confidence interval over {source}."


def _cost(cells: Sequence[CellRecord]) -> dict[str, str]:
    speeds = [c.cost.comments_per_second for c in cells if c.cost.comments_per_second]
    peaks = [c.cost.peak_memory_bytes for c in cells if c.cost.peak_memory_bytes]
    return {
        "training time": f"{sum(c.cost.train_seconds for c in cells):.1f} s for {len(cells)} cells",
        "evaluation time": f"{sum(c.cost.evaluation_seconds for c in cells):.1f} s",
        "training comments/s": f"{fmean(speeds):.0f}" if speeds else "-",
        "peak memory": f"{max(peaks) * 2**-20:.0f} MiB" if peaks else "-",
    }


def _epoch_record(epoch: EpochRecord) -> Record:
    return {
        **({"epoch": epoch.epoch} if epoch.step is None else {"step": epoch.step}),
        "train loss": epoch.train_loss,
        "validation micro-F1": epoch.validation["micro_f1"],
        "validation micro average precision": epoch.validation["micro_average_precision"],
        "seconds": epoch.seconds,
    }


def _label_record(label: str, cells: Sequence[CellRecord], number: int) -> Record:
    at_chosen = [cell.per_label[PER_LABEL][number] for cell in cells if PER_LABEL in cell.per_label]
    known = [scores for scores in at_chosen if scores.support]
    support, precision, recall, f1, average_precision = mean_label_scores(cells, number).values()
    return {
        "label": escape_line(label),
        "positive test rows": support,
        "precision": precision,
        "recall": recall,
        "F1": f1,
        "average precision": average_precision,
        "per-label threshold": mean_known(scores.threshold for scores in at_chosen),
        "F1 (per-label threshold)": mean_known(scores.f1 for scores in known),
    }


def _threshold_record(cells: Sequence[CellRecord], rule: str) -> Record:
    thresholds = [threshold for cell in cells for threshold in cell.thresholds[rule]]
    return {
        "threshold rule": rule,
        "lowest threshold": min(thresholds),
        "highest threshold": max(thresholds),
        **{
            title: mean_known(cell.metrics[rule]["test"][name] for cell in cells)
            for name, title in HEADLINES.items()
        },
    }


def _cell_text(value: Value) -> str:
    is_small = isinstance(value, float) and 0 < abs(value) < 0.01
    return f"{value:.3g}" if is_small else format_value(value)


def _join_distinct(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(numbers))))
