"""Where the progress of a command is printed: on stderr, as the options want it."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from toxbench.benchmark.progress import PREFIXES, TextProgress, WriteLine, terminal_progress
from toxbench.cli.console import Style, echo

_STYLES: Mapping[int, Style] = {logging.ERROR: "error", logging.WARNING: "warning"}


@contextmanager
def progress_for(values: Mapping[str, Any]) -> Iterator[TextProgress]:
    """Yield the progress for ``--quiet``, ``--format``, ``--verbose`` and ``--debug``."""
    is_quiet = values["quiet"] or values["format_name"] is not None
    options = {name: values[name] for name in ("verbose", "debug")}
    level = logging.ERROR if is_quiet else logging.DEBUG if options["verbose"] else logging.INFO
    if sys.stderr.isatty() and not is_quiet:
        with terminal_progress(level, **options) as progress:
            yield progress
    else:
        yield TextProgress(print_from(level), **options)


def print_from(level: int) -> WriteLine:
    """Return a function that prints lines of a level or a higher one on stderr."""

    def write(line: str, line_level: int) -> None:
        if line_level >= level:
            text = f"{PREFIXES.get(line_level, '')}{line}"
            echo(text, err=True, style=_STYLES.get(line_level, ""))

    return write
