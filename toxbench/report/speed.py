"""Measured speed as tables, with what has to be known before they are quoted."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from toxbench.plugin.formats import Table
from toxbench.records import SpeedRecord, Spread
from toxbench.report.words import millions, printable

Value = str | int | float | bool | None
Columns = Sequence[tuple[str, Callable[[SpeedRecord], str]]]


def speed_table(records: Sequence[SpeedRecord]) -> Table:
    """Return everything as one table with notes; there is at least one record."""
    return _table(records, "Speed", (*_TRAINING, *_REST), _notes(records))


def terminal_tables(records: Sequence[SpeedRecord]) -> list[Table]:
    """Return the same in tables that fit a terminal."""
    own = [record for record in records if record.times_slower is None]
    return [
        _table(records, "Training", _TRAINING, ()),
        _table(own, "Start-up, evaluation and weights", (_TRAINING[0], *_REST),
               _notes(records)),
    ]  # fmt: skip


def _table(
    records: Sequence[SpeedRecord], title: str, columns: Columns, notes: Iterable[str]
) -> Table:
    return Table(
        title=title,
        headers=tuple(title for title, _ in columns),
        rows=tuple(tuple(printable(text(record)) for _, text in columns) for record in records),
        notes=tuple(map(printable, notes)),
        records=tuple(map(_flat, records)),
    )


def _flat(record: SpeedRecord) -> dict[str, Value]:
    """Return a record as unrounded values: a spread becomes three columns."""
    flat: dict[str, Value] = {}
    for name, value in record:
        if name == "startup_seconds":
            total = value["total"] if value else None
            flat |= _spread_columns(name, total)
            flat |= {
                f"{name}_{stage}": value[stage].median if value else None
                for stage in ("import", "load", "tokenise", "build")
            }
        elif name in _SPREADS:
            flat |= _spread_columns(name, value)
        elif name == "versions":
            flat |= {f"version_{package}": version for package, version in value.items()}
        else:
            flat[name] = printable(value) if isinstance(value, str) else value
    flat["extrapolated"] = record.extrapolated
    return flat


_SPREADS = (
    "seconds_an_epoch", "comments_per_second", "tokens_per_second", "share_of_peak",
    "times_slower", "evaluation_comments_per_second",
)  # fmt: skip


def _spread_columns(name: str, spread: Spread | None) -> dict[str, Value]:
    return {
        name: spread.median if spread else None,
        f"{name}_low": spread.low if spread else None,
        f"{name}_high": spread.high if spread else None,
    }


def _notes(records: Sequence[SpeedRecord]) -> Iterator[str]:
    first = records[0]
    yield _machine(first)
    yield (
        f"Data: {first.data}; an epoch is {first.rows} train rows, cut at {first.max_length} "
        "tokens; padding is not counted."
    )
    yield (
        f"Median of {_count(first.repeats, 'run')} of {_count(first.epochs, 'epoch')}, in turn, "
        "and the lowest to the highest; times faster: its seconds over toxbench's of one round."
    )
    yield from (note for record in records if (note := _weights(record)))
    yield from (note for record in records if (note := _extrapolation(record)))
    if any(record.times_slower for record in records):
        yield "Peers train what AutoModelForSequenceClassification makes of the same weights."
    yield from _peaks(records)
    if first.device != "cuda":
        yield "Memory is the whole process's at its peak, with everything that is imported."


def _machine(record: SpeedRecord) -> str:
    versions = ", ".join(
        f"{name} {record.versions[name]}" for name in ("toxbench", "torch", "transformers")
    )
    threads = f", {_count(record.threads, 'thread')}" if record.device == "cpu" else ""
    return f"Measured {record.measured[:10]} on {record.device_name}{threads}; {versions}."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _weights(record: SpeedRecord) -> str | None:
    if record.times_slower is not None:
        return None
    size = (
        f"{millions(record.body_parameters)} parameters without embeddings; "
        f"{record.tokens} tokens an epoch"
    )
    if record.source == "stand-in":
        return (
            f"{record.backbone}: {record.weights}; {size}. A small model, not the checkpoint "
            "that gave the backbone its name; --shape measures other sizes."
        )
    return f"{record.backbone}: {record.weights}; {size}."


def _extrapolation(record: SpeedRecord) -> str | None:
    if not record.extrapolated:
        return None
    return (
        f"{record.backbone} by {record.by}: {record.comments_timed} comments timed (*), from which "
        "the epoch is extrapolated."
    )


def _peaks(records: Sequence[SpeedRecord]) -> Iterator[str]:
    peaks = {record.precision: record.peak_operations_per_second for record in records}
    found = " and ".join(f"{peak / 1e9:.0f} GFLOP/s in {name}" for name, peak in peaks.items())
    yield (
        f"Of peak: 6 operations a parameter (without embeddings) and token, over the largest "
        f"matrix product's speed in the same precision: {found}."
    )


def _spread(pattern: str, spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{pattern} [{pattern}, {pattern}]".format(spread.median, spread.low, spread.high)


def _middle(pattern: str, name: str) -> Callable[[SpeedRecord], str]:
    def text(record: SpeedRecord) -> str:
        return pattern.format(getattr(record, name).median)

    return text


def _startup(record: SpeedRecord) -> str:
    if record.startup_seconds is None:
        return "-"
    return _spread("{:.1f}", record.startup_seconds["total"])


def _startup_stages(record: SpeedRecord) -> str:
    if record.startup_seconds is None:
        return "-"
    stages = record.startup_seconds.items()
    return ", ".join(f"{name} {spread.median:.1f}" for name, spread in stages if name != "total")


_TRAINING: Columns = (
    ("backbone", lambda record: record.backbone),
    ("trained by", lambda record: f"{record.by}{'*' if record.extrapolated else ''}"),
    ("precision", lambda record: record.precision),
    ("comments/s", _middle("{:.1f}", "comments_per_second")),
    ("tokens/s", _middle("{:.0f}", "tokens_per_second")),
    ("seconds an epoch", lambda record: _spread("{:.2f}", record.seconds_an_epoch)),
    ("of peak", _middle("{:.0%}", "share_of_peak")),
    ("peak memory", lambda record: f"{record.peak_memory_bytes / 2**20:.0f} MiB"),
    ("toxbench is times faster", lambda record: _spread("{:.2f}", record.times_slower)),
)
_REST: Columns = (
    ("start-up, seconds", _startup),
    ("of which", _startup_stages),
    ("evaluated comments/s",
     lambda record: _spread("{:.0f}", record.evaluation_comments_per_second)),
    ("weights", lambda record: record.weights),
)  # fmt: skip
