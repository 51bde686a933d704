"""Measured speed as a table, with notes on how to read it."""

from collections.abc import Callable, Iterator, Sequence

from toxbench.plugin.contracts import Table
from toxbench.records import SpeedRecord, Spread
from toxbench.util.text import escape_line, format_millions

Value = str | int | float | bool | None


def speed_table(records: Sequence[SpeedRecord]) -> Table:
    """Return one row for each record; there is at least one."""
    return Table(
        title="Speed",
        headers=tuple(title for title, _ in _COLUMNS),
        rows=tuple(tuple(escape_line(text(record)) for _, text in _COLUMNS) for record in records),
        notes=tuple(map(escape_line, _notes(records))),
        records=tuple(map(_flat, records)),
    )


def _flat(record: SpeedRecord) -> dict[str, Value]:
    """Return a record as unrounded values: a spread becomes three columns."""
    flat: dict[str, Value] = {}
    for name, value in record:
        if isinstance(value, Spread):
            flat |= {name: value.median, f"{name}_low": value.low, f"{name}_high": value.high}
        elif name == "versions":
            flat |= {f"version_{package}": version for package, version in value.items()}
        else:
            flat[name] = escape_line(value) if isinstance(value, str) else value
    return flat


def _notes(records: Sequence[SpeedRecord]) -> Iterator[str]:
    first = records[0]
    yield _machine(first)
    yield (
        f"Data: {first.table}; an epoch is {first.rows} train rows, cut at {first.max_length} "
        "tokens; padding is not counted."
    )
    yield (
        f"Median of {_count(first.repeats, 'run')} of {_count(first.epochs, 'epoch')}, in brackets "
        "the lowest and the highest."
    )
    yield from map(_weights, records)
    yield _peaks(records)
    if first.device != "cuda":
        yield "Memory is the peak of the whole process, with all imported packages."


def _machine(record: SpeedRecord) -> str:
    versions = ", ".join(
        f"{name} {record.versions[name]}" for name in ("toxbench", "torch", "transformers")
    )
    threads = f", {_count(record.threads, 'thread')}" if record.device == "cpu" else ""
    return f"Measured {record.measured_at[:10]} on {record.device_name}{threads}; {versions}."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _weights(record: SpeedRecord) -> str:
    note = (
        f"{record.backbone}: {record.weights}; {format_millions(record.body_parameters)} "
        f"parameters without embeddings; {record.tokens} tokens an epoch."
    )
    if record.source == "stand-in":
        note += " A small model, not the checkpoint that gave the backbone its name."
    return note


def _peaks(records: Sequence[SpeedRecord]) -> str:
    peaks = {record.precision: record.peak_operations_per_second for record in records}
    speeds = " and ".join(f"{peak / 1e9:.0f} GFLOP/s in {name}" for name, peak in peaks.items())
    return (
        "Of peak: 6 operations a parameter (without embeddings) and token, over the largest "
        f"matrix product's speed in the same precision: {speeds}."
    )


def _spread(pattern: str, spread: Spread) -> str:
    return f"{pattern} [{pattern}, {pattern}]".format(spread.median, spread.low, spread.high)


_COLUMNS: Sequence[tuple[str, Callable[[SpeedRecord], str]]] = (
    ("backbone", lambda record: record.backbone),
    ("precision", lambda record: record.precision),
    ("seconds an epoch", lambda record: _spread("{:.2f}", record.seconds_per_epoch)),
    ("comments/s", lambda record: f"{record.comments_per_second.median:.1f}"),
    ("tokens/s", lambda record: f"{record.tokens_per_second.median:.0f}"),
    ("evaluated comments/s",
     lambda record: f"{record.evaluation_comments_per_second.median:.0f}"),
    ("of peak", lambda record: f"{record.share_of_peak.median:.0%}"),
    ("peak memory", lambda record: f"{record.peak_memory_bytes / 2**20:.0f} MiB"),
)  # fmt: skip
