"""An audit in words: one line for a leaderboard, or every finding with what to do about it."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from textwrap import wrap

from toxbench.records import Audit
from toxbench.util.text import escape_line

_SHOWN = 10  # rows, texts or labels of one finding; the stored protocol holds all of them
_WIDTH = 98

Pairs = tuple[tuple[int, int], ...]
ShowRow = Callable[[int], str]  # row, counted from 0 -> how to call it
Finding = tuple[str, ...]  # a headline, then what it means, what to do and where, if there is any


def leak_note(audit: Audit) -> str:
    """Say in one line how much the split leaks, and what keeps it from leaking."""
    shared = audit.shared_groups
    counts = [(len(audit.exact_copies), "the text"), (len(audit.near_copies), "nearly the text")]
    if shared is not None:
        counts.insert(0, (len(shared.rows), f"the {shared.column}"))
    what = ", ".join(f"{words} of {count}" for count, words in counts if count)
    remedy = "--split grouped keeps groups and equal texts on one side"
    if not audit.exact_copies and not (shared and shared.rows):
        remedy = "remove near copies, or give them one group and use --split grouped"
    return (
        f"The split leaks: train or validation rows have {what} of the {audit.test_rows} test "
        f"rows; {remedy}. See: toxbench data check."
    )


def audit_lines(audit: Audit, show_row: ShowRow) -> list[str]:
    """Lay an audit out for a terminal: what was found, what it means and what to do.

    Args:
        audit: its labels and columns may hold anything; what comes out is safe to print.
        show_row: how to call a row; it must not show the comment.
    """
    return [line for finding in audit_findings(audit, show_row) for line in _laid_out(finding)]


def audit_findings(audit: Audit, show_row: ShowRow) -> tuple[Finding, ...]:
    """Say what was found; nothing is escaped. Arguments as in `audit_lines`."""
    return (
        _exact(audit, show_row),
        _near(audit, show_row),
        _groups(audit, show_row),
        (f"Leaks in all: {_of_tested(audit, audit.leaked_rows)}, each counted once",),
        _conflicts(audit, show_row),
        _implications(audit),
        _constant(audit),
    )


def _exact(audit: Audit, show_row: ShowRow) -> Finding:
    headline = f"Exact copies: {_of_tested(audit, len(audit.exact_copies))}"
    if not audit.exact_copies:
        return (headline,)
    return (
        headline,
        "Their text, apart from case, spaces and Unicode form, is in train or validation as well, "
        "so that scores on them measure memory. Use --split grouped, which keeps equal texts on "
        "one side, or remove the copies.",
        _pairs(audit.exact_copies, show_row),
    )


def _near(audit: Audit, show_row: ShowRow) -> Finding:
    headline = f"Near copies: {_of_tested(audit, len(audit.near_copies))}"
    if not audit.near_copies:
        return (headline,)
    return (
        headline,
        f"Nearly their text is in train or validation: {audit.near_copy_definition}. No split "
        "looks for these: remove all but one, or give them one group (--group-column) and use "
        "--split grouped.",
        _pairs(audit.near_copies, show_row),
    )


def _groups(audit: Audit, show_row: ShowRow) -> Finding:
    shared = audit.shared_groups
    if shared is None:
        return ("Shared groups: unknown, for lack of a column of groups (--group-column NAME)",)
    headline = f"Shared groups: {_of_tested(audit, len(shared.rows))}, from {shared.groups} groups"
    if not shared.rows:
        return (headline,)
    return (
        headline,
        f"Rows with the same {shared.column} are in train or validation as well, so that a model "
        "may know their topic or author. To measure it on groups that it has never seen, use "
        "--split grouped.",
        f"Test rows: {_some(map(show_row, shared.rows), len(shared.rows))}",
    )


def _conflicts(audit: Audit, show_row: ShowRow) -> Finding:
    count, rows = len(audit.label_conflicts), sum(map(len, audit.label_conflicts))
    headline = f"Conflicting labels: {count} texts, in {rows} rows"
    if not count:
        return (headline,)
    texts = (f"({_some(map(show_row, one), len(one))})" for one in audit.label_conflicts)
    return (
        headline,
        "Rows with equal texts have different labels, so that no model can be right on all of "
        "them. Decide on one labelling of each text, or remove the rows.",
        f"Rows: {_some(texts, count)}",
    )


def _implications(audit: Audit) -> Finding:
    count = len(audit.implications)
    headline = f"Label implications: {count}"
    if not count:
        return (headline,)
    lines = (
        f"{one.label} implies {one.implied_label} in {one.share:.1%} of its {one.positives} rows"
        for one in audit.implications
    )
    return (
        headline,
        "A label that (nearly) always comes with another one. There is nothing to mend, but the "
        "scores of such labels are no independent evidence.",
        *_first(lines, count),
    )


def _constant(audit: Audit) -> Finding:
    constant = [
        *(f"{label} has no positive row" for label in audit.never_positive_labels),
        *(f"{label} is positive in every row" for label in audit.always_positive_labels),
    ]
    headline = f"Constant labels: {len(constant)}"
    if not constant:
        return (headline,)
    return (
        headline,
        "There is nothing to learn or to score in them. Leave them out by naming the others: "
        "--labels A,B,C.",
        _some(constant, len(constant)),
    )


def _of_tested(audit: Audit, count: int) -> str:
    return f"{count} of {audit.test_rows} test rows"


def _pairs(pairs: Pairs, show_row: ShowRow) -> str:
    """Name each test row with the row that it copies."""
    named = (f"{show_row(row)} = {show_row(other)}" for row, other in pairs)
    return f"Test row = its copy: {_some(named, len(pairs))}"


def _some(items: Iterable[str], count: int) -> str:
    return ", ".join(_first(items, count))


def _first(items: Iterable[str], count: int) -> Iterator[str]:
    yield from islice(items, _SHOWN)
    if count > _SHOWN:
        yield f"and {count - _SHOWN} more"


def _laid_out(finding: Finding) -> Iterator[str]:
    headline, *paragraphs = map(escape_line, finding)
    yield headline
    for paragraph in paragraphs:
        yield from wrap(
            paragraph, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
