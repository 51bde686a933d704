"""The matrix of faults: what can go wrong, what toxbench does, and which tests cause it.

A test names its rows with ``@pytest.mark.faults(14)``; ``pytest -m faults`` prints the table.
A row holds if at least one of its tests ran and none of them failed.
"""

from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass

import pytest
from tabulate import tabulate


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        area: where it comes from.
        fault: what goes wrong.
        answer: the exit code, and what is done.
    """

    area: str
    fault: str
    answer: str


MATRIX = {
    1: Row("data", "file missing, empty or header only", "3"),
    2: Row("data", "not UTF-8", "3, with the byte offset; suggests --encoding"),
    3: Row("data", "wrong delimiter", "3, lists the columns that were read"),
    4: Row("data", "two columns with the same name", "3"),
    5: Row("data", "a label column is missing", "3, suggests the closest name"),
    6: Row("data", "every row has one field too many", "3"),
    7: Row("data", "a short row, an unclosed quote", "3, with the line number"),
    8: Row("data", "a blank label", "3, never filled in"),
    9: Row("data", "yes, 2 or 1.5 as a label", "3, unless mapped by --true-values"),
    10: Row(
        "data", "the texts NA, null, None; empty texts", "ordinary texts; 3 without --drop-empty"
    ),
    11: Row("data", "NUL, control, bidi, 1 MB, emoji, half surrogates", "accepted or 3, never 1"),
    12: Row("data", "two rows with the same id", "3"),
    13: Row(
        "data",
        "a label without positive rows; no positive row at all",
        "warning, not in macro averages; 3",
    ),
    14: Row(
        "data", "the table changed since the run", "a new folder; 3 with --resume, with both hashes"
    ),
    15: Row("data", "one row, two rows, fewer rows than folds", "3"),
    16: Row("command line", "unknown option, key or backbone", "2, suggests the closest name"),
    17: Row("command line", "impossible rates and fractions", "2, before any training"),
    18: Row("command line", "--device cuda without a GPU", "2; the CPU is not used instead"),
    19: Row("command line", "output closed early, as by head", "no traceback"),
    20: Row(
        "command line", "Ctrl-C", "130, prints the command that resumes; a second one ends at once"
    ),
    21: Row(
        "command line", "SIGTERM", "143, prints the command that resumes; a second one ends at once"
    ),
    22: Row("plugins", "import error", "5, only its cells fail"),
    23: Row("plugins", "two plugins with the same name", "5, only their cells fail"),
    24: Row("plugins", "misspelled hook", "5, only its cells fail"),
    25: Row("plugins", "logits of wrong shape or type, or NaN", "5, only its cells fail"),
    26: Row("plugins", "SystemExit, segmentation fault, hang", "5, only its cells fail"),
    27: Row(
        "plugins",
        "changes random state, labels, torch defaults",
        "results of other cells do not change",
    ),
    28: Row("training", "out of memory", "micro-batch halved and recorded; the cell fails at 1"),
    29: Row("training", "the loss is NaN", "5, counted as diverged on the leaderboard"),
    30: Row("training", "constant predictions", "stored and marked"),
    31: Row(
        "training",
        "Hub down, slow, 401, 404, file cut off or changed",
        "cached or stand-in weights, or 75",
    ),
    32: Row("training", "the worker is killed", "5, the other cells are computed"),
    33: Row("store", "SIGKILL at any moment", "the resumed run has the same leaderboard"),
    34: Row("store", "disk full", "6, no partial files, stored cells intact"),
    35: Row("store", "a cell cut short or with flipped bits", "renamed, reported, computed again"),
    36: Row(
        "store",
        "two runs on one folder",
        "75, with the process id of the other run; readers never wait",
    ),
    37: Row("store", "read-only folder", "6, before training"),
    38: Row("store", "file of a newer version", "6, the file is not changed"),
    39: Row("security", "names that leave the results folder; symbolic links", "2; 6"),
    40: Row("security", "hostile comments, ids and names", "escaped wherever they are shown"),
    41: Row("security", "pickled weights, code of checkpoints", "never loaded"),
    42: Row("security", "stand-in weights with another hash", "6"),
    43: Row("security", "plugins run code", "--plugins limits them, manifest.json lists them"),
    44: Row("security", "token, home path, user name", "in no stored file"),
    45: Row("security", "json.py, torch.py or toxbench/ in the folder", "no process imports them"),
    46: Row("security", "wrong input of any kind", "no message holds a text of the table"),
    47: Row("security", "umask, existing modes, a private table", "no file is more open than they"),
    48: Row("plugins", "an import prints, exits, crashes or hangs", "a warning; stdout unchanged"),
    49: Row("plugins", "misleading name, unreadable metadata", "foreign; a warning"),
    50: Row("command line", "SIGHUP", "129, as for SIGTERM"),
    51: Row("command line", "closed stdin or stdout; python -OO", "no work is lost; 2"),
    52: Row("store", "FIFO, device, sparse file or link", "6, before it is read"),
    53: Row(
        "training",
        "another config or tokenizer beside the same weights",
        "another candidate, which is trained",
    ),
    54: Row("training", "a search is killed", "with one worker, the trials of an undisturbed one"),
    55: Row(
        "plugins",
        "another version, or changed files",
        "another candidate; 5 in a worker that differs",
    ),
    56: Row("security", "forged stand-in and checksum in the cache", "made from the package again"),
    57: Row("store", "several first runs at once", "no file that another run reads is replaced"),
    58: Row(
        "store", "temporary files of killed processes", "removed by the next run, if not in use"
    ),
    59: Row("training", "a tokenizer with other options", "its own tokens, or none in the cache"),
    60: Row("training", "seeds with other threads or versions", "one row, with a note"),
    61: Row(
        "training",
        "weights with other names, shapes or architecture",
        "2, names tensors; known prefixes are left out",
    ),
    62: Row("training", "weights with a trained head", "a new head, shown; or --keep-head"),
    63: Row("training", "NaN or infinity in the weights", "5, names the tensor"),
    64: Row("training", "fewer positions or embeddings than tokens", "2, before training"),
    65: Row(
        "training",
        "a tokenizer without a padding token",
        "pads with the end token; logits do not depend on padding",
    ),
    66: Row("training", "comments longer than max_length", "shown above 5 % of the tokens"),
    67: Row("store", "a field of a record deleted, of another type or extreme", "0 or 6, never 1"),
    68: Row(
        "store",
        "a folder or file renamed to that of another protocol or cell",
        "found by content; 6",
    ),
    69: Row("data", "thousands of labels", "the most and least frequent; all in CSV and JSON"),
    70: Row("command line", "an empty path", "2"),
}


class FaultMatrix:
    """Collects how the tests of each row ended, in this process or in those of pytest-xdist."""

    def __init__(self) -> None:
        self._outcomes: dict[int, list[str]] = defaultdict(list)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Write the rows of a test into its report, which travels between processes."""
        report = yield
        rows = [number for mark in item.iter_markers("faults") for number in mark.args]
        report.user_properties.append(("faults", rows))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note under each row of a test how it ended."""
        if report.when == "call" or report.outcome != "passed":
            # The properties belong to the test, whose three reports each added the same.
            for number in dict(report.user_properties).get("faults", ()):
                self._outcomes[number].append(report.outcome)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the matrix, when it was asked for or a run of all tests did every row."""
        asked = terminalreporter.config.option.markexpr == "faults"
        if not asked and self._outcomes.keys() != MATRIX.keys():
            return
        rows = [
            (number, row.area, row.fault, row.answer, _seen(self._outcomes[number]))
            for number, row in MATRIX.items()
        ]
        held = sum(row[-1] == "holds" for row in rows)
        terminalreporter.section("faults")
        terminalreporter.write_line(tabulate(rows, ("", "area", "fault", "answer", "seen")))
        terminalreporter.write_line(f"{held} of {len(MATRIX)}")


def _seen(outcomes: list[str]) -> str:
    if "failed" in outcomes:
        return "FAILED"
    return "holds" if "passed" in outcomes else "not run"


def as_markdown() -> str:
    """Return the table for toxbench/docs/reference/exit-codes-and-faults.md."""
    rows = [(n, row.area, row.fault, row.answer) for n, row in MATRIX.items()]
    return tabulate(rows, ("", "area", "what goes wrong", "what toxbench does"), "github")
