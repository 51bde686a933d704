"""Scores quoted from publications, which a leaderboard shows below the measured rows."""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from toxbench.errors import SettingsError, did_you_mean
from toxbench.evaluation.definitions import METRICS
from toxbench.settings import FrozenModel
from toxbench.store.cells import QUOTED, CellStore
from toxbench.store.folder import quarantine_damaged, read_errors
from toxbench.util.atomic import write_atomically
from toxbench.util.text import safe_quote

_REMEDY = "give --quoted FILE to toxbench run to store the quoted rows again"


def _validate_metric(name: str) -> str:
    """Return the name; raise ValueError if it is not a metric of a candidate."""
    names = [key for key, metric in METRICS.items() if metric.direction != "-"]
    if name not in names:
        raise ValueError(f"no such metric{did_you_mean(name, names)}")
    return name


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]
MetricName = Annotated[str, AfterValidator(_validate_metric)]
Score = Annotated[float, Field(ge=0, le=1, strict=True)]


class QuotedRow(FrozenModel):
    """The scores of one system in a publication.

    Attributes:
        name: of the system.
        source: the publication, with the place of the scores in it.
        scores: metric -> value in [0, 1]; at least one.
    """

    name: Text
    source: Text
    scores: dict[MetricName, Score]

    @model_validator(mode="before")
    @classmethod
    def _collect_scores(cls, table: Any) -> Any:
        """Move the metrics, which are keys next to name and source, into ``scores``."""
        if not isinstance(table, dict):
            raise ValueError("each row is a table [[quoted]]")
        texts = {key: table[key] for key in ("name", "source") if key in table}
        scores = {key: value for key, value in table.items() if key not in texts}
        if not scores:
            raise ValueError("no metric; add one, such as micro_f1 = 0.7")
        return {**texts, "scores": scores}


class _QuotedFile(FrozenModel):
    quoted: tuple[QuotedRow, ...] = ()


def quoted_metrics(rows: Iterable[QuotedRow]) -> list[str]:
    """Return the metrics that at least one row has, in the order of `METRICS`."""
    names = {name for row in rows for name in row.scores}
    return [name for name in METRICS if name in names]


def read_quoted(path: Path) -> tuple[QuotedRow, ...]:
    """Read a TOML file with one table ``[[quoted]]`` for each row.

    Raises:
        SettingsError: the file cannot be read, or a key or value is invalid.
    """
    return _read(path)[1]


def load_quoted(*stores: CellStore) -> tuple[QuotedRow, ...]:
    """Return the stored rows; a row that several folders contain appears once.

    Raises:
        StorageError: a stored file cannot be read or is damaged.
    """
    rows: list[QuotedRow] = []
    for store in stores:
        rows += [row for row in _read_stored(store.folder / QUOTED) if row not in rows]
    return tuple(rows)


def store_quoted(folder: Path, path: Path | None) -> list[str]:
    """Copy a file for `read_quoted` into a protocol's folder; without a path, check the stored one.

    Returns:
        one message if the stored file was damaged and moved aside.

    Raises:
        SettingsError: as `read_quoted`.
        StorageError: the folder cannot be written.
    """
    if path is None:
        return list(quarantine_damaged([folder / QUOTED], _read_stored, _REMEDY))
    write_atomically(folder / QUOTED, _read(path)[0])
    return []


def _read(path: Path) -> tuple[bytes, tuple[QuotedRow, ...]]:
    """Return the content of a file and its rows; raise as `read_quoted`."""
    try:
        content = path.read_bytes()
        return content, _parse(content)
    except OSError as error:
        raise SettingsError(f"--quoted {path}: {error.strerror}") from error
    except ValidationError as error:
        raise SettingsError(f"--quoted {path}: {_first_problem(error)}") from None
    except ValueError as error:  # of tomllib, or not UTF-8
        raise SettingsError(f"--quoted {path}: not TOML: {error}") from error


def _read_stored(path: Path) -> tuple[QuotedRow, ...]:
    """Read a stored file; there are no rows if it does not exist."""
    if not path.is_file():
        return ()
    with read_errors(path, _REMEDY):
        return _parse(path.read_bytes())


def _parse(content: bytes) -> tuple[QuotedRow, ...]:
    return _QuotedFile(**tomllib.loads(content.decode("utf-8"))).quoted


def _first_problem(error: ValidationError) -> str:
    """Describe pydantic's first error: the row, counted from 1, the key and the problem."""
    first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        return f"unknown key {safe_quote(str(first['loc'][0]))}; each row is a table [[quoted]]"
    keys = [key for key in first["loc"] if key not in {"quoted", "scores", "[key]"}]
    place = ", ".join(f"row {key + 1}" if isinstance(key, int) else safe_quote(key) for key in keys)
    problem = first["msg"].removeprefix("Value error, ")
    return f"{place or 'quoted'}: {problem[:1].lower()}{problem[1:]}"
