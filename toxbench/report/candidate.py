"""One candidate, as tables: settings, cells, curves, labels, thresholds and failures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from toxbench.errors import SettingsError, did_you_mean
from toxbench.evaluation.definitions import HALF, PER_LABEL
from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import Leaderboard, Row
from toxbench.records import CellRecord, FailureRecord, LabelScores
from toxbench.settings import TrainSettings
from toxbench.util.text import escape_line, format_millions


@dataclass(frozen=True)
class EpochMean:
    """One epoch, mean over the cells that have it; None where no cell has such a value.

    Attributes:
        number: counted from 1.
        step: of the training, where it was looked at every few steps; None: an epoch is a pass.
        kept: cells that kept this epoch's weights.
    """

    number: int
    step: int | None
    train_loss: float
    validation_loss: float | None
    micro_f1: float | None
    average_precision: float | None
    seconds: float
    kept: int


def mean_epochs(cells: Sequence[CellRecord]) -> list[EpochMean]:
    """Average each epoch over cells; empty where none was trained in epochs."""
    longest = max((len(cell.epochs) for cell in cells), default=0)
    return [_mean_epoch(cells, number) for number in range(1, longest + 1)]


def _mean_epoch(cells: Sequence[CellRecord], number: int) -> EpochMean:
    there = [cell for cell in cells if len(cell.epochs) >= number]
    epochs = [cell.epochs[number - 1] for cell in there]

    def score(name: str) -> float | None:
        return mean_known(epoch.validation.get(name) for epoch in epochs)

    return EpochMean(
        number=number,
        step=epochs[0].step,
        train_loss=fmean(epoch.train_loss for epoch in epochs),
        validation_loss=score("loss"),
        micro_f1=score("micro_f1"),
        average_precision=score("micro_average_precision"),
        seconds=fmean(epoch.seconds for epoch in epochs),
        kept=sum(cell.best_epoch == number for cell in there),
    )


def mean_known(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


Value = str | int | float | bool | None
Record = dict[str, Value]
_BARS = "▁▂▃▄▅▆▇█"
_HEADLINES = {"micro_f1": "micro-F1", "subset_accuracy": "subset accuracy"}


@dataclass(frozen=True)
class Candidate:
    """What is stored of one candidate.

    Attributes:
        name: as the leaderboard has it.
        row: on the leaderboard; None while no seed has every fold.
        cells: with a result, by fold and seed.
        failures: cells without.
        labels: of the table.
        references: name -> other settings to set its own beside, such as the default ones.
    """

    name: str
    row: Row | None
    cells: tuple[CellRecord, ...]
    failures: tuple[FailureRecord, ...]
    labels: tuple[str, ...]
    references: Mapping[str, TrainSettings]


def find_candidate(
    board: Leaderboard, cells: Iterable[CellRecord], failures: Iterable[FailureRecord], name: str
) -> Candidate:
    """Return the candidate that a leaderboard calls so, also if all that is stored failed.

    Raises:
        SettingsError: there is none, or the name fits several.
    """
    stored, failed = list(cells), list(failures)
    have = {cell.key for cell in stored}
    failed = [record for record in failed if record.key not in have]
    rows = {(row.candidate, row.digest): row for row in board.rows}
    keys = {*have, *(record.key for record in failed)}
    found = sorted({(key.candidate, key.digest) for key in keys})
    named = dict(zip(_names(found, rows), found, strict=True))
    chosen = named[_chosen(name.removesuffix(" (constant!)"), list(named), found)]
    own = [cell for cell in stored if (cell.key.candidate, cell.key.digest) == chosen]
    return Candidate(
        name=next(n for n, key in named.items() if key == chosen),
        row=rows.get(chosen),
        cells=tuple(sorted(own, key=lambda cell: (cell.key.fold, cell.key.seed))),
        failures=tuple(r for r in failed if (r.key.candidate, r.key.digest) == chosen),
        labels=board.protocol.labels,
        references={},
    )


def _names(found: Sequence[tuple[str, str]], rows: Mapping[tuple[str, str], Row]) -> list[str]:
    """Name candidates as the leaderboard does; those without a row by their digest, if need be."""
    plain = [name for name, _ in found]
    return [
        rows[key].name
        if key in rows
        else f"{key[0]} #{key[1][:6]}"
        if plain.count(key[0]) > 1
        else key[0]
        for key in found
    ]


def _chosen(name: str, names: list[str], found: Sequence[tuple[str, str]]) -> str:
    if name in names:
        return name
    same = [own for own, (candidate, _) in zip(names, found, strict=True) if candidate == name]
    if len(same) == 1:
        return same[0]
    if same:
        listed = ", ".join(f"'{own}'" for own in same)
        raise SettingsError(f"{name} is on the leaderboard more than once; name one of {listed}")
    there = ", ".join(names) or "none yet"
    raise SettingsError(
        f"no candidate is called {name!r}{did_you_mean(name, {*names, *(n for n, _ in found)})}; "
        f"there are: {there}"
    )


def summary_table(candidate: Candidate) -> Table:
    """Return what it is, what it scored and what it cost."""
    row, cells = candidate.row, candidate.cells
    facts = _facts(candidate) | (_scores(row) if row else {}) | (_cost(cells) if cells else {})
    records = tuple[Record, ...]({"fact": name, "value": value} for name, value in facts.items())
    notes = ["The same prediction for every test row."] if row and row.constant else []
    if row is None:
        notes.append("No place on the leaderboard: no seed has every fold.")
    if row and row.uncertainty:
        notes.append("[low, high] is the 95 % interval over test rows and seeds.")
    return _table(candidate.name, ("fact", "value"), records, notes)


def _facts(candidate: Candidate) -> dict[str, str]:
    row, cells = candidate.row, candidate.cells
    facts = {"cells": f"{len(cells)} stored, {len(candidate.failures)} failed"}
    if row and row.tier is not None:
        facts["tier"] = str(row.tier)
    if not cells:
        return facts
    first = cells[0]
    facts |= {
        "kind": first.kind,
        "from": first.distribution,
        "seeds": _listed(cell.key.seed for cell in cells),
        "folds": _listed(cell.key.fold for cell in cells),
    }
    if first.weights:
        facts["weights"] = f"{first.weights.label} ({first.weights.identity[:12]})"
        facts["parameters"] = format_millions(first.parameters)
    if first.tuning:
        tuning = first.tuning
        facts["tuned"] = (
            f"{tuning.trials} trials, {tuning.pruned_trials} pruned, "
            f"{tuning.failed_trials} failed; "
            f"average precision on inner validation rows {tuning.average_precision:.3f}"
        )
    where = first.environment
    threads = "1 thread" if where.threads == 1 else f"{where.threads} threads"
    facts["computed"] = f"{where.device_name}, {where.precision}, {threads}"
    if first.truncated_share:
        facts["cut comments"] = f"{first.truncated_share:.1%} at max_length"
    return facts


def _scores(row: Row) -> dict[str, str]:
    def text(name: str) -> str:
        statistic, sure = row.values[name], row.uncertainty.get(name)
        interval = f" [{sure.low:.3f}, {sure.high:.3f}]" if sure else ""
        return f"{statistic.mean:.3f}{interval}" if statistic else "-"

    scores = {title: text(name) for name, title in _HEADLINES.items()}
    return scores | {f"{title} gap": text(f"{name}_gap") for name, title in _HEADLINES.items()}


def _cost(cells: Sequence[CellRecord]) -> dict[str, str]:
    speeds = [c.cost.comments_per_second for c in cells if c.cost.comments_per_second]
    peaks = [c.cost.peak_memory_bytes for c in cells if c.cost.peak_memory_bytes]
    return {
        "training": f"{sum(c.cost.train_seconds for c in cells):.1f} s for {len(cells)} cells",
        "evaluation": f"{sum(c.cost.evaluation_seconds for c in cells):.1f} s",
        "comments/s": f"{fmean(speeds):.0f}" if speeds else "-",
        "peak memory": f"{max(peaks) * 2**-20:.0f} MiB" if peaks else "-",
    }


def settings_table(candidate: Candidate) -> Table:
    """Return the settings, and where the default or the tuned ones are others."""
    settings = candidate.cells[0].settings if candidate.cells else None
    own = settings.model_dump() if settings else {}
    others = {name: known.model_dump() for name, known in candidate.references.items()}
    records = tuple[Record, ...](
        {"setting": name, "value": value}
        | {
            other: "same" if known[name] == value else known[name]
            for other, known in others.items()
        }
        for name, value in own.items()
    )
    notes = [] if own else ["A baseline, or nothing stored: there are no training settings."]
    table = _table("Settings", ("setting", "value", *others), records, notes)
    return replace(table, rows=tuple(tuple(map(str, record.values())) for record in records))


def cells_table(candidate: Candidate) -> Table:
    """Return the scores of each cell."""
    by_steps = any(e.step is not None for cell in candidate.cells for e in cell.epochs)
    word = "look" if by_steps else "epoch"
    records = tuple[Record, ...](
        {
            "fold": cell.key.fold,
            "seed": cell.key.seed,
            **{title: cell.metrics[HALF]["test"][name] for name, title in _HEADLINES.items()},
            **{f"train {title}": cell.metrics[HALF]["train"][name]
               for name, title in _HEADLINES.items()},
            f"best {word}": cell.best_epoch,
            f"{word}s": len(cell.epochs) or None,
            "seconds": cell.cost.train_seconds,
            "micro-batch": cell.micro_batch,
        }
        for cell in candidate.cells
    )  # fmt: skip
    headers = tuple(records[0]) if records else ("fold", "seed")
    return _table("Cells, at threshold 0.5", headers, records, [], keys=2)


def curves_table(candidate: Candidate) -> Table:
    """Return train loss and validation scores of each epoch, mean over cells."""
    records = tuple(map(_epoch, mean_epochs(candidate.cells)))
    notes = [
        f"{name}: {bars}"
        for name in ("train loss", "validation average precision")
        if (bars := sparkline([record[name] for record in records]))
    ]
    notes += [] if records else ["Nothing that is stored was trained in epochs."]
    headers = tuple(records[0]) if records else ("epoch",)
    return _table("Learning curves, mean over cells", headers, records, notes)


def _epoch(epoch: EpochMean) -> Record:
    return {
        **({"epoch": epoch.number} if epoch.step is None else {"step": epoch.step}),
        "train loss": epoch.train_loss,
        "validation micro-F1": epoch.micro_f1,
        "validation average precision": epoch.average_precision,
        "seconds": epoch.seconds,
        "kept by": epoch.kept,
    }


def sparkline(values: Sequence[Value]) -> str:
    """Draw numbers as bars of eight heights; "" where fewer than two are known."""
    known = [value for value in values if isinstance(value, int | float)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    if len(known) < 2 or len(known) < len(values):
        return ""
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return f"{''.join(_BARS[round((v - low) / step)] for v in known)} ({low:.3f} to {high:.3f})"


def labels_table(candidate: Candidate) -> Table:
    """Return each label on the test rows, mean over cells whose fold has a positive row of it."""
    records = tuple(
        _label(label, candidate.cells, number)
        for number, label in enumerate(candidate.labels if candidate.cells else ())
    )
    notes = [
        "Precision, recall and F1 are at threshold 0.5. The chosen threshold is of validation rows."
    ]
    headers = tuple(records[0]) if records else ("label",)
    return _table("Labels on the test rows", headers, records, notes)


def _label(label: str, cells: Sequence[CellRecord], number: int) -> Record:
    at_half = [cell.per_label[HALF][number] for cell in cells]
    chosen = [cell.per_label[PER_LABEL][number] for cell in cells if PER_LABEL in cell.per_label]
    supports = {cell.key.fold: cell.per_label[HALF][number].support for cell in cells}

    def mean(of: Callable[[LabelScores], float | None], scores: list[LabelScores]) -> Value:
        return mean_known(of(score) for score in scores if score.support)

    return {
        "label": escape_line(label),
        "test positives": sum(supports.values()),
        "precision": mean(lambda score: score.precision, at_half),
        "recall": mean(lambda score: score.recall, at_half),
        "F1": mean(lambda score: score.f1, at_half),
        "average precision": mean(lambda score: score.average_precision, at_half),
        "threshold chosen": mean_known(score.threshold for score in chosen),
        "F1 there": mean(lambda score: score.f1, chosen),
    }


def thresholds_table(candidate: Candidate) -> Table:
    """Return for each rule which thresholds there were, and the test scores at them."""
    cells = candidate.cells
    rules = list(dict.fromkeys(rule for cell in cells for rule in cell.thresholds))
    records = tuple(_rule([c for c in cells if rule in c.thresholds], rule) for rule in rules)
    headers = tuple(records[0]) if records else ("rule",)
    return _table("Thresholds by rule, mean over cells", headers, records, [])


def _rule(cells: Sequence[CellRecord], rule: str) -> Record:
    values = [value for cell in cells for value in cell.thresholds[rule]]
    return {
        "rule": rule,
        "lowest": min(values),
        "highest": max(values),
        **{
            title: mean_known(cell.metrics[rule]["test"][name] for cell in cells)
            for name, title in _HEADLINES.items()
        },
    }


def failures_table(candidate: Candidate) -> Table:
    """Return the cells without a result, and why."""
    records = tuple[Record, ...](
        {
            "fold": record.key.fold,
            "seed": record.key.seed,
            "kind": escape_line(record.kind),
            "reason": escape_line(record.reason),
            "when": record.failed_at,
        }
        for record in candidate.failures
    )
    notes = ["The same toxbench run again tries them again."] if records else ["None failed."]
    return _table(
        "Failed cells", ("fold", "seed", "kind", "reason", "when"), records, notes, keys=2
    )


TABLES: Mapping[str, Callable[[Candidate], Table]] = {
    "summary": summary_table,
    "settings": settings_table,
    "cells": cells_table,
    "curves": curves_table,
    "labels": labels_table,
    "thresholds": thresholds_table,
    "failures": failures_table,
}


def _table(
    title: str,
    headers: Sequence[str],
    records: tuple[Record, ...],
    notes: Sequence[str],
    keys: int = 1,
) -> Table:
    rows = tuple(tuple(_text(value) for value in record.values()) for record in records)
    return Table(escape_line(title), tuple(headers), rows, tuple(notes), records, keys=keys)


def _text(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.3g}"
    return escape_line(str(value))


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(numbers))))
