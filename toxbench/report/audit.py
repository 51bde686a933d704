"""Text for an audit: a one-line warning for a leaderboard, or every finding with its remedy."""

from collections.abc import Callable, Iterable, Iterator
from textwrap import wrap

from toxbench.evaluation.label_errors import ScoreBounds
from toxbench.records import Audit
from toxbench.util.text import escape_line, first_items

_WIDTH = 98

RowFormatter = Callable[[int], str]  # row number, counted from 0 -> its name
Finding = tuple[str, ...]  # a headline, then paragraphs: meaning and remedy, affected rows


def leak_note(audit: Audit) -> str:
    """Return one line with the number of leaking test rows and a remedy."""
    shared = audit.shared_groups
    counts = [
        (len(audit.exact_copies), "the same text"),
        (len(audit.near_copies), "nearly the same text"),
    ]
    if shared is not None:
        counts.insert(0, (len(shared.rows), f"the same {shared.column}"))
    leaks = ", ".join(
        f"{count} {'has' if count == 1 else 'have'} {content}" for count, content in counts if count
    )
    remedy = "Use --split grouped, which keeps groups and equal texts together."
    if not audit.exact_copies and not (shared and shared.rows):
        remedy = "Remove near copies, or put them in one group and use --split grouped."
    return (
        f"The split leaks: of {audit.test_rows} test rows, {leaks} as a train or validation row. "
        f"{remedy} Details: toxbench data check."
    )


def audit_lines(audit: Audit, format_row: RowFormatter) -> list[str]:
    """Return all findings of an audit as lines for a terminal.

    Args:
        audit: its labels and column names may hold any character; the lines are escaped.
        format_row: returns the name of a row, never its comment.
    """
    return [line for finding in audit_findings(audit, format_row) for line in _wrap(finding)]


def audit_findings(audit: Audit, format_row: RowFormatter) -> tuple[Finding, ...]:
    """Return all findings of an audit, not escaped; arguments as in `audit_lines`."""
    return (
        _exact_copies(audit, format_row),
        _near_copies(audit, format_row),
        _shared_groups(audit, format_row),
        (f"Test rows with any of these leaks: {audit.leaked_rows} of {audit.test_rows}",),
        _conflicts(audit, format_row),
        _implications(audit),
        _constant_labels(audit),
    )


def _exact_copies(audit: Audit, format_row: RowFormatter) -> Finding:
    headline = f"Exact copies: {_test_rows(audit, len(audit.exact_copies))}"
    if not audit.exact_copies:
        return (headline,)
    return (
        headline,
        "The train or validation rows have the same text, apart from case, spaces and Unicode "
        "form. Scores on these test rows measure memorization. Use --split grouped, which keeps "
        "equal texts together, or remove the copies.",
        _list_pairs(audit.exact_copies, format_row),
    )


def _near_copies(audit: Audit, format_row: RowFormatter) -> Finding:
    headline = f"Near copies: {_test_rows(audit, len(audit.near_copies))}"
    if not audit.near_copies:
        return (headline,)
    return (
        headline,
        f"The train or validation rows have nearly the same text: {audit.near_copy_definition}. No "
        "split detects near copies: remove all but one, or put them in one group (--group-column) "
        "and use --split grouped.",
        _list_pairs(audit.near_copies, format_row),
    )


def _shared_groups(audit: Audit, format_row: RowFormatter) -> Finding:
    shared = audit.shared_groups
    if shared is None:
        return ("Shared groups: unknown, because no group column is set (--group-column NAME)",)
    headline = f"Shared groups: {_test_rows(audit, len(shared.rows))}, from {shared.groups} groups"
    if not shared.rows:
        return (headline,)
    return (
        headline,
        f"The train or validation rows have the same {shared.column}, so a model may know the "
        "topic or the author. Use --split grouped to measure scores on unseen groups.",
        f"Test rows: {_join(map(format_row, shared.rows), len(shared.rows))}",
    )


def _conflicts(audit: Audit, format_row: RowFormatter) -> Finding:
    count, rows = len(audit.label_conflicts), sum(map(len, audit.label_conflicts))
    headline = f"Conflicting labels: {count} texts, in {rows} rows"
    if not count:
        return (headline,)
    texts = (f"({_join(map(format_row, copies), len(copies))})" for copies in audit.label_conflicts)
    return (
        headline,
        "Rows with equal texts have different labels, so no model can predict all of them "
        "correctly. Choose the same labels for equal texts, or remove the rows.",
        f"Rows: {_join(texts, count)}",
    )


def _implications(audit: Audit) -> Finding:
    count = audit.implication_count
    headline = f"Label implications: {count}"
    if not count:
        return (headline,)
    lines = (
        f"{implication.label} implies {implication.implied_label} in {implication.share:.1%} of "
        f"its {implication.positives} rows"
        for implication in audit.implications
    )
    return (
        headline,
        "The first label (nearly) always occurs with the second. This is not an error, but their "
        "scores are not independent evidence.",
        *first_items(lines, count),
    )


def _constant_labels(audit: Audit) -> Finding:
    constant = [
        *(f"{label} has no positive row" for label in audit.never_positive_labels),
        *(f"{label} is positive in every row" for label in audit.always_positive_labels),
    ]
    headline = f"Constant labels: {len(constant)}"
    if not constant:
        return (headline,)
    return (
        headline,
        "These labels cannot be learned or scored. To leave them out, list the other labels: "
        "--labels A,B,C.",
        _join(constant, len(constant)),
    )


def label_noise_lines(bounds: tuple[ScoreBounds, ScoreBounds] | None) -> list[str]:
    """Return the highest reachable scores as lines for a terminal; see `label_noise`."""
    if bounds is None:
        return ["Label noise: unknown, because no text has a copy"]
    everywhere, copied = bounds
    return list(
        _wrap(
            (
                f"Label noise: {copied.rows} rows have a copy with equal or nearly equal text",
                "A model that gives copies the same labels reaches at most a micro-F1 of "
                f"{copied.micro_f1:.3f} and a subset accuracy of {copied.subset_accuracy:.3f} on "
                f"these rows ({everywhere.micro_f1:.3f} and {everywhere.subset_accuracy:.3f} on "
                "all rows). If other rows are labelled as these are, no model can do better on "
                "them either.",
            )
        )
    )


def _test_rows(audit: Audit, count: int) -> str:
    return f"{count} of {audit.test_rows} test rows"


def _list_pairs(pairs: Iterable[tuple[int, int]], format_row: RowFormatter) -> str:
    """List each test row with the row that it copies."""
    names = [f"{format_row(row)} = {format_row(original)}" for row, original in pairs]
    return f"Test row = copied row: {_join(names, len(names))}"


def _join(items: Iterable[str], count: int) -> str:
    return ", ".join(first_items(items, count))


def _wrap(finding: Finding) -> Iterator[str]:
    headline, *paragraphs = map(escape_line, finding)
    yield headline
    for paragraph in paragraphs:
        yield from wrap(
            paragraph, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
