"""An audit in words: one line for a leaderboard, or every finding with what to do about it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from toxbench.records import Audit
from toxbench.report.words import printable

_SHOWN = 10  # rows, texts or implications of one finding; the protocol holds all of them

ShowRow = Callable[[int], str]  # row, counted from 0 -> how to call it


def leak_note(audit: Audit) -> str:
    """Say in one line that the split leaks, how much, and what keeps it from leaking."""
    shared = audit.shared
    found = [
        (
            len(shared.rows) if shared else 0,
            f"share their {shared.column or 'group' if shared else 'group'} with train rows",
        ),
        (len(audit.exact), "have a copy of their text there"),
        (len(audit.near), "have a near copy of their text there"),
    ]
    counts = ", ".join(f"{count} {what}" for count, what in found if count)
    grouped = len(audit.exact) or (shared is not None and shared.rows)
    remedy = (
        "--split grouped keeps groups and equal texts on one side"
        if grouped
        else "remove them, or give copies one group (--group-column) and use --split grouped"
    )
    return (
        f"The split leaks: of {audit.tested} test rows {counts} (train or validation); {remedy}."
    )


def audit_lines(audit: Audit, show_row: ShowRow) -> list[str]:
    """Lay an audit out for a terminal: what was found, what it means and what to do.

    Args:
        audit: its labels and columns may hold anything; what comes out is safe to print.
        show_row: how to call a row; it must not show the comment.
    """
    parts = (
        _copies(audit, show_row),
        _near(audit, show_row),
        _groups(audit, show_row),
        [f"Affected: {_of_tested(audit, audit.affected)} in any of these three ways"],
        _conflicts(audit, show_row),
        _implications(audit),
        _constant(audit),
    )
    return [printable(line) if line else "" for part in parts for line in (*part, "")][:-1]


def _copies(audit: Audit, show_row: ShowRow) -> list[str]:
    return _finding(
        f"Exact copies: {_of_tested(audit, len(audit.exact))}",
        "Their text is also in train or validation, apart from case, spaces and Unicode form.",
        "Scores on them measure memory. Use --split grouped; if that leaves too few groups, "
        "remove copies.",
        _pairs(audit.exact, show_row),
    )


def _near(audit: Audit, show_row: ShowRow) -> list[str]:
    return _finding(
        f"Near copies: {_of_tested(audit, len(audit.near))}",
        f"Nearly their text is in train or validation: {audit.near_definition}.",
        "No split keeps them apart by itself: remove one of each, or give them one group "
        "(--group-column).",
        _pairs(audit.near, show_row),
    )


def _groups(audit: Audit, show_row: ShowRow) -> list[str]:
    shared = audit.shared
    if shared is None:
        return ["Shared groups: unknown, the table has no group column (--group-column NAME)"]
    return _finding(
        f"Shared groups: {_of_tested(audit, len(shared.rows))}, in {shared.groups} groups",
        f"Rows with the same {shared.column} are also in train or validation, so a model may know "
        "the topic",
        "or the author. To score on groups that it has never seen, use --split grouped.",
        _limited(map(show_row, shared.rows), len(shared.rows), ", "),
    )


def _conflicts(audit: Audit, show_row: ShowRow) -> list[str]:
    rows = sum(map(len, audit.conflicts))
    groups = (" = ".join(_some(map(show_row, group), len(group))) for group in audit.conflicts)
    return _finding(
        f"Conflicting labels: {len(audit.conflicts)} texts, in {rows} rows",
        "Rows with equal texts do not have equal labels: no model can be right on all of them.",
        "Decide on one labelling for each text, or remove the rows.",
        _limited(groups, len(audit.conflicts), "; "),
    )


def _implications(audit: Audit) -> list[str]:
    found = audit.implications
    lines = (
        f"{one.label} implies {one.implied} in {one.share:.1%} of its {one.positives} rows"
        for one in found
    )
    title = f"Label implications: {len(found)}"
    if not found:
        return [title]
    return [
        title,
        "  A label that (nearly) always comes with another one. Nothing to mend: but their scores "
        "are",
        "  no independent evidence, and a model that breaks such a rule is wrong somewhere.",
        *(f"  {line}" for line in _some(lines, len(found))),
    ]


def _constant(audit: Audit) -> list[str]:
    constant = [
        *(f"{label} has no positive row" for label in audit.never),
        *(f"{label} is positive in every row" for label in audit.always),
    ]
    return _finding(
        f"Constant labels: {len(constant)}",
        "There is nothing to learn or to score.",
        "Leave them out: name the other labels with --labels.",
        _limited(constant, len(constant), ", "),
    )


def _finding(title: str, meaning: str, remedy: str, where: str) -> list[str]:
    """Explain a finding, if there is anything found."""
    return [title, *(f"  {line}" for line in (meaning, remedy, where))] if where else [title]


def _of_tested(audit: Audit, count: int) -> str:
    return f"{count} of {audit.tested} test rows"


def _pairs(pairs: Sequence[tuple[int, int]], show_row: ShowRow) -> str:
    named = (f"{show_row(row)} = {show_row(other)}" for row, other in pairs)
    return _limited(named, len(pairs), "; ")


def _limited(items: Iterable[str], count: int, between: str) -> str:
    return between.join(_some(items, count))


def _some(items: Iterable[str], count: int) -> Iterator[str]:
    yield from islice(items, _SHOWN)
    if count > _SHOWN:
        yield f"and {count - _SHOWN} more"
