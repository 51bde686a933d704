"""The command line: one module for each command, and the exit codes of all of them."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

import click
import cloup
from click.shell_completion import shell_complete

from toxbench.cli.backbones import backbones
from toxbench.cli.behaviour import behaviour
from toxbench.cli.cache import cache
from toxbench.cli.compare import compare
from toxbench.cli.config import config
from toxbench.cli.console import echo, open_standard_streams
from toxbench.cli.curve import curve
from toxbench.cli.data import data
from toxbench.cli.errors import errors
from toxbench.cli.export import export
from toxbench.cli.leaderboard import leaderboard
from toxbench.cli.merge import merge
from toxbench.cli.metrics import metrics
from toxbench.cli.new_backbone import new_backbone
from toxbench.cli.predict import predict
from toxbench.cli.publish import publish
from toxbench.cli.report import report
from toxbench.cli.rescore import rescore
from toxbench.cli.run import run
from toxbench.cli.show import show
from toxbench.cli.slices import slices
from toxbench.cli.speed import speed
from toxbench.cli.torchrun import TorchrunSession, resume_hint
from toxbench.cli.tune import tune
from toxbench.errors import SettingsError, StorageError, ToxbenchError, check_docstrings
from toxbench.util.atomic import DISK_FULL_ERRORS
from toxbench.util.processes import (
    NOT_DISTRIBUTED,
    TerminationSignal,
    TorchrunEnv,
    raise_on_termination,
)
from toxbench.util.text import escape_line

EXIT_CODES = (
    "Exit codes: 0 ok, 1 bug, 2 usage or settings, 3 data, 4 plugin, 5 some cells failed, "
    "6 storage, 75 try again later, 129 hangup, 130 interrupted, 143 terminated."
)

# A terminal sends Ctrl-C to torchrun's processes, and torchrun then sends it once more.
_ECHO_SECONDS = 1.0
_COMPLETE = "_TOXBENCH_COMPLETE"


SECTIONS = (
    cloup.Section("Train", [run, tune, curve, speed]),
    cloup.Section(
        "Read results",
        [leaderboard, show, compare, report, rescore, slices, errors, merge, publish],
    ),
    cloup.Section("Use models", [predict, behaviour, export]),
    cloup.Section("Data and plugins", [data, metrics, backbones, new_backbone]),
    cloup.Section("This machine", [config, cache]),
)


@cloup.group(
    epilog=EXIT_CODES,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@cloup.version_option(package_name="toxbench")
@cloup.option("--debug", is_flag=True, help="Show a traceback with every error.")
def cli(debug: bool) -> None:
    """Compare fine-tuned backbones on a table of comments with yes/no labels.

    Start with: toxbench run
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with a documented code; errors are one line on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    open_standard_streams()
    if _COMPLETE in os.environ:  # a shell asks how a word may continue
        sys.exit(shell_complete(cli, {}, "toxbench", _COMPLETE, os.environ[_COMPLETE]))
    try:
        check_docstrings()
        env = TorchrunEnv.from_environ(os.environ)
    except SettingsError as error:
        _print_error(str(error))
        sys.exit(error.exit_code)
    if env.size == 1:
        sys.exit(_code_of(words, lambda: _run(words)))
    session = TorchrunSession(env, words)

    def run_connected() -> int:
        with session.connect():
            return _run(words, session)

    sys.exit(session.run(lambda: _code_of(words, run_connected, env, _ECHO_SECONDS)))


def _code_of(
    words: list[str],
    run: Callable[[], int],
    env: TorchrunEnv = NOT_DISTRIBUTED,
    echo_seconds: float = 0.0,
) -> int:
    """Run a command; print its error and return the exit code."""
    try:
        with raise_on_termination(echo_seconds):
            code = run()
            sys.stdout.flush()
            return code
    except TerminationSignal as ended:
        command = next((word for word in words if not word.startswith("-")), "")
        hint = f"; {resume_hint(env, words)}" if command in {"run", "tune", "curve"} else ""
        _print_error(f"{ended}{hint}")
        return ended.exit_code
    except BrokenPipeError:
        # The reader of the output has exited (| head). Python would report that again at its end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            with suppress(BrokenPipeError):
                stream.flush()
                continue
            os.dup2(nowhere, stream.fileno())
        return 0
    except click.exceptions.NoArgsIsHelpError as error:
        echo(error.ctx.get_help() if error.ctx else str(error), err=True)
        return 2
    except click.ClickException as error:
        _print_error(error.format_message())
        return 2
    except OSError as error:
        # A file or folder that cannot be used, wherever that was noticed.
        _print_traceback(words)
        return _print_os_error(error)
    except ToxbenchError as error:
        _print_traceback(words)
        for problem in error.problems:
            _print_error(problem)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort
        _print_traceback(words)
        _print_error(
            f"this is a bug in toxbench: {type(error).__name__}: {' '.join(str(error).split())}; "
            "run again with toxbench --debug ... and report it"
        )
        return 1


def _run(words: list[str], session: TorchrunSession | None = None) -> int:
    """Run a command; return its exit code. (``cli.main`` would treat a closed pipe as an error.)"""
    try:
        with cli.make_context("toxbench", words, obj=session) as context:
            cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return 0


def _print_os_error(error: OSError) -> int:
    """Print which file or folder cannot be used; return the exit code."""
    if error.errno in DISK_FULL_ERRORS:  # outside the results folder: stdout, a temporary
        target = error.filename or "the output"
        _print_error(
            f"cannot write {target}: {error.strerror}; make room and start the same command again"
        )
        # Buffered output cannot be written either: Python would report that again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        _print_error(f"{error.filename or type(error).__name__}: {error.strerror or error}")
    return StorageError.exit_code


def _print_traceback(words: Sequence[str]) -> None:
    if "--debug" in words:
        echo(traceback.format_exc().rstrip("\n"), err=True)


def _print_error(message: str) -> None:
    with suppress(OSError):  # of a log on a full disk: the exit code remains
        echo(f"toxbench: error: {escape_line(message)}", err=True, style="error")
