"""Tables of one candidate: summary, settings, cells, curves, labels, thresholds and failures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from toxbench.errors import SettingsError, did_you_mean
from toxbench.evaluation.definitions import HALF, HEADLINES, PER_LABEL
from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import Leaderboard, Row
from toxbench.records import CellRecord, FailureRecord, LabelScores
from toxbench.settings import TrainSettings
from toxbench.util.text import escape_line, format_millions

Value = str | int | float | bool | None
Record = dict[str, Value]
_Key = tuple[str, str]  # name and digest of a candidate
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
        references: name -> settings to compare with, such as the default settings.
    """

    name: str
    row: Row | None
    cells: tuple[CellRecord, ...]
    failures: tuple[FailureRecord, ...]
    labels: tuple[str, ...]
    references: Mapping[str, TrainSettings]


@dataclass(frozen=True)
class EpochMean:
    """One epoch, averaged over the cells that have it; a score is None if no cell has it.

    Attributes:
        number: counted from 1.
        step: of the training, if evaluation runs every few steps; None: an epoch is a pass.
        train_loss: in training mode.
        validation_loss: in evaluation mode.
        micro_f1: on validation rows.
        average_precision: micro average, on validation rows.
        seconds: of training.
        best_count: cells for which this is the best epoch.
    """

    number: int
    step: int | None
    train_loss: float
    validation_loss: float | None
    micro_f1: float | None
    average_precision: float | None
    seconds: float
    best_count: int


def find_candidate(
    board: Leaderboard, cells: Iterable[CellRecord], failures: Iterable[FailureRecord], name: str
) -> Candidate:
    """Return the candidate with a name, even if all of its cells failed.

    Args:
        board: names the candidates that have a row.
        cells: of all candidates, with a result.
        failures: of all candidates; those of cells that have a result are ignored.
        name: as shown on the leaderboard.

    Raises:
        SettingsError: no candidate or several have this name.
    """
    stored, failed = list(cells), list(failures)
    stored_keys = {cell.key for cell in stored}
    failed = [record for record in failed if record.key not in stored_keys]
    rows = {(row.candidate, row.digest): row for row in board.rows}
    cell_keys = {*stored_keys, *(record.key for record in failed)}
    keys = sorted({(key.candidate, key.digest) for key in cell_keys})
    key_of = dict(zip(_display_names(keys, rows), keys, strict=True))
    display_name = _match_name(name.removesuffix(" (constant!)"), list(key_of), keys)
    key = key_of[display_name]
    own_cells = [cell for cell in stored if (cell.key.candidate, cell.key.digest) == key]
    return Candidate(
        name=display_name,
        row=rows.get(key),
        cells=tuple(sorted(own_cells, key=lambda cell: (cell.key.fold, cell.key.seed))),
        failures=tuple(r for r in failed if (r.key.candidate, r.key.digest) == key),
        labels=board.protocol.labels,
        references={},
    )


def mean_epochs(cells: Sequence[CellRecord]) -> list[EpochMean]:
    """Average each epoch over cells; empty if no cell was trained in epochs."""
    longest = max((len(cell.epochs) for cell in cells), default=0)
    return [_mean_epoch(cells, number) for number in range(1, longest + 1)]


def mean_known(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


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
    records = tuple[Record, ...](
        {"property": name, "value": value} for name, value in properties.items()
    )
    notes = []
    if row and row.constant:
        notes.append("Predicts the same labels for every test row.")
    if row is None:
        notes.append("Not on the leaderboard: no seed has a result for every fold.")
    if row and row.uncertainty:
        notes.append("[low, high] is the 95 % confidence interval over test rows and seeds.")
    return _table(candidate.name, ("property", "value"), records, notes)


def settings_table(candidate: Candidate) -> Table:
    """Return the settings, and how the default or the tuned settings differ."""
    settings = candidate.cells[0].settings if candidate.cells else None
    values = settings.model_dump() if settings else {}
    references = {name: other.model_dump() for name, other in candidate.references.items()}
    records = tuple[Record, ...](
        {"setting": setting, "value": value}
        | {
            name: "same" if reference[setting] == value else reference[setting]
            for name, reference in references.items()
        }
        for setting, value in values.items()
    )
    notes = [] if values else ["No training settings: a baseline, or no cell has a result."]
    table = _table("Settings", ("setting", "value", *references), records, notes)
    return replace(table, rows=tuple(tuple(map(str, record.values())) for record in records))


def cells_table(candidate: Candidate) -> Table:
    """Return the scores of each cell."""
    by_steps = any(e.step is not None for cell in candidate.cells for e in cell.epochs)
    unit = "evaluation" if by_steps else "epoch"
    records = tuple[Record, ...](
        {
            "fold": cell.key.fold,
            "seed": cell.key.seed,
            **{f"test {title}": cell.metrics[HALF]["test"][name]
               for name, title in HEADLINES.items()},
            **{f"train {title}": cell.metrics[HALF]["train"][name]
               for name, title in HEADLINES.items()},
            f"best {unit}": cell.best_epoch,
            f"{unit}s": len(cell.epochs) or None,
            "train seconds": cell.cost.train_seconds,
            "micro-batch size": cell.micro_batch,
        }
        for cell in candidate.cells
    )  # fmt: skip
    headers = tuple(records[0]) if records else ("fold", "seed")
    notes = ["A cell is one training run: one seed on one fold."]
    return _table("Scores of each cell at threshold 0.5", headers, records, notes, keys=2)


def curves_table(candidate: Candidate) -> Table:
    """Return train loss and validation scores of each epoch, mean over cells."""
    records = tuple(map(_epoch_record, mean_epochs(candidate.cells)))
    notes = [
        f"{name}: {bars}"
        for name in ("train loss", "validation micro average precision")
        if (bars := sparkline([record[name] for record in records]))
    ]
    notes += [] if records else ["No learning curve: no stored cell was trained in epochs."]
    headers = tuple(records[0]) if records else ("epoch",)
    return _table("Learning curves, mean over cells", headers, records, notes)


def labels_table(candidate: Candidate) -> Table:
    """Return each label on the test rows, mean over cells whose fold has a positive row of it."""
    records = tuple(
        _label_record(label, candidate.cells, number)
        for number, label in enumerate(candidate.labels if candidate.cells else ())
    )
    notes = [
        "Precision, recall and F1 are at threshold 0.5 unless the column title has another one. "
        "The per-label threshold is chosen on validation rows."
    ]
    headers = tuple(records[0]) if records else ("label",)
    return _table("Scores of each label on test rows, mean over cells", headers, records, notes)


def thresholds_table(candidate: Candidate) -> Table:
    """Return the thresholds of each rule and the test scores at them."""
    cells = candidate.cells
    rules = list(dict.fromkeys(rule for cell in cells for rule in cell.thresholds))
    records = tuple(
        _threshold_record([cell for cell in cells if rule in cell.thresholds], rule)
        for rule in rules
    )
    headers = tuple(records[0]) if records else ("threshold rule",)
    title = "Scores on test rows by threshold rule, mean over cells"
    return _table(title, headers, records, [])


def failures_table(candidate: Candidate) -> Table:
    """Return the cells without a result, with the reason of the failure."""
    records = tuple[Record, ...](
        {
            "fold": record.key.fold,
            "seed": record.key.seed,
            "kind": escape_line(record.kind),
            "reason": escape_line(record.reason),
            "time": record.failed_at,
        }
        for record in candidate.failures
    )
    retry = "To retry these cells, repeat the toxbench command that computed them."
    notes = [retry] if records else ["No cell failed."]
    headers = ("fold", "seed", "kind", "reason", "time")
    return _table("Failed cells", headers, records, notes, keys=2)


TABLES: Mapping[str, Callable[[Candidate], Table]] = {
    "summary": summary_table,
    "settings": settings_table,
    "cells": cells_table,
    "curves": curves_table,
    "labels": labels_table,
    "thresholds": thresholds_table,
    "failures": failures_table,
}


def _display_names(keys: Sequence[_Key], rows: Mapping[_Key, Row]) -> list[str]:
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


def _match_name(name: str, display_names: list[str], keys: Sequence[_Key]) -> str:
    """Return the display name that equals ``name``, or the only one of a candidate so named."""
    if name in display_names:
        return name
    matches = [
        display_name
        for display_name, (candidate, _) in zip(display_names, keys, strict=True)
        if candidate == name
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        choices = ", ".join(f"'{match}'" for match in sorted(matches))
        raise SettingsError(f"several candidates are called {name!r}; choose one of: {choices}")
    available = ", ".join(display_names) or "none yet"
    hint = did_you_mean(name, {*display_names, *(candidate for candidate, _ in keys)})
    raise SettingsError(f"no candidate is called {name!r}{hint}; candidates: {available}")


def _mean_epoch(cells: Sequence[CellRecord], number: int) -> EpochMean:
    trained = [cell for cell in cells if len(cell.epochs) >= number]
    epochs = [cell.epochs[number - 1] for cell in trained]

    def mean_score(name: str) -> float | None:
        return mean_known(epoch.validation.get(name) for epoch in epochs)

    return EpochMean(
        number=number,
        step=epochs[0].step,
        train_loss=fmean(epoch.train_loss for epoch in epochs),
        validation_loss=mean_score("loss"),
        micro_f1=mean_score("micro_f1"),
        average_precision=mean_score("micro_average_precision"),
        seconds=fmean(epoch.seconds for epoch in epochs),
        best_count=sum(cell.best_epoch == number for cell in trained),
    )


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
            f"{tuning.failed_trials} failed; micro average precision on inner validation rows "
            f"{tuning.average_precision:.3f}"
        )
    environment = first.environment
    threads = "1 thread" if environment.threads == 1 else f"{environment.threads} threads"
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
    return scores | {f"{title} gap": text(f"{name}_gap") for name, title in HEADLINES.items()}


def _cost(cells: Sequence[CellRecord]) -> dict[str, str]:
    speeds = [c.cost.comments_per_second for c in cells if c.cost.comments_per_second]
    peaks = [c.cost.peak_memory_bytes for c in cells if c.cost.peak_memory_bytes]
    return {
        "training time": f"{sum(c.cost.train_seconds for c in cells):.1f} s for {len(cells)} cells",
        "evaluation time": f"{sum(c.cost.evaluation_seconds for c in cells):.1f} s",
        "training comments/s": f"{fmean(speeds):.0f}" if speeds else "-",
        "peak memory": f"{max(peaks) * 2**-20:.0f} MiB" if peaks else "-",
    }


def _epoch_record(epoch: EpochMean) -> Record:
    return {
        **({"epoch": epoch.number} if epoch.step is None else {"step": epoch.step}),
        "train loss": epoch.train_loss,
        "validation micro-F1": epoch.micro_f1,
        "validation micro average precision": epoch.average_precision,
        "seconds": epoch.seconds,
        "cells with this best epoch": epoch.best_count,
    }


def _label_record(label: str, cells: Sequence[CellRecord], number: int) -> Record:
    at_half = [cell.per_label[HALF][number] for cell in cells]
    at_chosen = [cell.per_label[PER_LABEL][number] for cell in cells if PER_LABEL in cell.per_label]
    supports = {cell.key.fold: cell.per_label[HALF][number].support for cell in cells}

    def mean(read: Callable[[LabelScores], float | None], scores: list[LabelScores]) -> Value:
        return mean_known(read(score) for score in scores if score.support)

    return {
        "label": escape_line(label),
        "positive test rows": sum(supports.values()),
        "precision": mean(lambda score: score.precision, at_half),
        "recall": mean(lambda score: score.recall, at_half),
        "F1": mean(lambda score: score.f1, at_half),
        "average precision": mean(lambda score: score.average_precision, at_half),
        "per-label threshold": mean_known(score.threshold for score in at_chosen),
        "F1 (per-label threshold)": mean(lambda score: score.f1, at_chosen),
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


def _table(
    title: str,
    headers: Sequence[str],
    records: tuple[Record, ...],
    notes: Sequence[str],
    keys: int = 1,
) -> Table:
    rows = tuple(tuple(_cell_text(value) for value in record.values()) for record in records)
    return Table(escape_line(title), tuple(headers), rows, tuple(notes), records, keys=keys)


def _cell_text(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.3g}"
    return escape_line(str(value))


def _join_distinct(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(numbers))))
