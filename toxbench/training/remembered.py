"""What ``toxbench speed`` measured on this machine, kept in the cache for later estimates."""

import math
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from toxbench.atomic import cache_folder, write_atomically
from toxbench.errors import NewerError
from toxbench.records import RememberedSpeed, RememberedSpeeds
from toxbench.training.device import Device

_FACTOR = 4.0  # a body that much larger or smaller says nothing: small layers never reach the peak


@dataclass(frozen=True)
class Remembered:
    """What is known.

    Attributes:
        speeds: at most one for each device, precision, threads, body and batch size.
        problem: one line where the file was there and could not be used.
        is_newer: because a newer toxbench wrote it.
    """

    speeds: tuple[RememberedSpeed, ...] = ()
    problem: str | None = None
    is_newer: bool = False

    def share_of_peak(
        self, device: Device, threads: int, body_parameters: int, batch_size: int
    ) -> float | None:
        """Return the share that the most similar training reached; None where there is none.

        Device, precision and threads are the same, the body is at most four times larger or
        smaller; of several, the one of the nearest size, then of the nearest batch size.
        """

        def distance(speed: RememberedSpeed) -> tuple[float, float]:
            return (
                abs(math.log(speed.body_parameters / body_parameters)),
                abs(math.log(speed.batch_size / batch_size)),
            )

        same = [
            speed
            for speed in self.speeds
            if (speed.device_name, speed.precision) == (device.name, device.precision)
            and speed.threads == threads
            and distance(speed)[0] <= math.log(_FACTOR)
        ]
        return min(same, key=distance).share_of_peak if same else None


def recall() -> Remembered:
    """Read what was remembered; a damaged file counts as none, and says so."""
    path = _path()
    try:
        stored = RememberedSpeeds.read(path.read_bytes(), path)
    except FileNotFoundError:
        return Remembered()
    except NewerError as error:
        return Remembered(problem=f"{error}; its speeds are not used", is_newer=True)
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged"
        return Remembered(
            problem=f"{path}, which toxbench speed wrote, is not used: {reason}; "
            "toxbench speed writes it anew"
        )
    return Remembered(stored.speeds)


def remember(new: tuple[RememberedSpeed, ...]) -> None:
    """Add measurements; they replace those of the same device, precision, threads and sizes.

    Of two processes that remember at once, one may be forgotten: it is measured again some day.
    The file of a newer toxbench stays as it is.

    Raises:
        StorageError: the cache folder cannot be written.
    """
    known = recall()
    if known.is_newer:
        return
    kept = {_key(speed): speed for speed in (*known.speeds, *new)}
    stored = RememberedSpeeds(speeds=tuple(kept.values()))
    write_atomically(_path(), stored.model_dump_json(indent=1).encode("utf-8"))


def _key(speed: RememberedSpeed) -> tuple[object, ...]:
    return (speed.device_name, speed.precision, speed.threads, speed.body_parameters,
            speed.batch_size)  # fmt: skip


def _path() -> Path:
    return cache_folder() / "speed.json"
