"""The table of measured speeds, with notes on the measurement."""

from collections.abc import Callable, Iterator, Sequence

from toxbench.plugin.contracts import Table
from toxbench.records import SpeedRecord, Spread
from toxbench.report.tables import Record
from toxbench.util.text import count_of, escape_line, format_millions


def speed_table(records: Sequence[SpeedRecord]) -> Table:
    """Return one row for each record; ``records`` has at least one."""
    return Table(
        title="Speed",
        headers=tuple(title for title, _ in _COLUMNS),
        rows=tuple(tuple(escape_line(text(record)) for _, text in _COLUMNS) for record in records),
        notes=tuple(map(escape_line, _notes(records))),
        records=tuple(map(_flatten, records)),
    )


def _flatten(record: SpeedRecord) -> Record:
    """Return a record as unrounded values: a spread becomes three columns."""
    flat: Record = {}
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
    yield _machine_note(first)
    yield (
        f"Data: {first.table}. An epoch is {first.rows} train rows, truncated at "
        f"{first.max_length} tokens. Padding tokens are not counted."
    )
    yield (
        f"Median of {count_of(first.repeats, 'run')} of {count_of(first.epochs, 'epoch')} each; "
        "[lowest, highest]."
    )
    yield from map(_weights_note, records)
    yield _peak_note(records)
    if first.device != "cuda":
        yield "Peak memory is that of the process, including all imported packages."


def _machine_note(record: SpeedRecord) -> str:
    versions = ", ".join(
        f"{name} {record.versions[name]}" for name in ("toxbench", "torch", "transformers")
    )
    threads = f", {count_of(record.threads, 'thread')}" if record.device == "cpu" else ""
    return f"Measured {record.measured_at[:10]} on {record.device_name}{threads}; {versions}."


def _weights_note(record: SpeedRecord) -> str:
    note = (
        f"{record.backbone}: {record.weights}; {format_millions(record.body_parameters)} "
        f"parameters without embeddings; {record.tokens} tokens/epoch."
    )
    if record.source == "stand-in":
        note += " A small model, not the checkpoint that the backbone is named after."
    return note


def _peak_note(records: Sequence[SpeedRecord]) -> str:
    peaks = {record.precision: record.peak_operations_per_second for record in records}
    speeds = " and ".join(f"{peak / 1e9:.0f} GFLOP/s in {name}" for name, peak in peaks.items())
    return (
        "MFU (model FLOPs utilization): 6 FLOPs per parameter (without embeddings) and token, "
        f"relative to the measured peak of a large matrix product: {speeds}."
    )


def _spread(pattern: str, spread: Spread) -> str:
    return f"{pattern} [{pattern}, {pattern}]".format(spread.median, spread.low, spread.high)


def _mebibytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:.0f} MiB"


_COLUMNS: Sequence[tuple[str, Callable[[SpeedRecord], str]]] = (
    ("backbone", lambda record: record.backbone),
    ("precision", lambda record: record.precision),
    ("seconds/epoch", lambda record: _spread("{:.2f}", record.seconds_per_epoch)),
    ("train comments/s", lambda record: f"{record.comments_per_second.median:.1f}"),
    ("train tokens/s", lambda record: f"{record.tokens_per_second.median:.0f}"),
    ("evaluation comments/s",
     lambda record: f"{record.evaluation_comments_per_second.median:.0f}"),
    ("MFU", lambda record: f"{record.share_of_peak.median:.0%}"),
    ("peak memory", lambda record: _mebibytes(record.peak_memory_bytes)),
)  # fmt: skip
