"""Audit text: counts, meaning and remedy of each finding, with escaped names."""

from typing import Any

import pytest
from support import make_audit

from toxbench.records import Audit, Implication, SharedGroups
from toxbench.report.audit import audit_lines, leak_note

SHARED = SharedGroups(column="VideoId", groups=2, rows=(5, 6, 7))


def joined_lines(audit: Audit) -> str:
    """Return the text of an audit as one line, after a check of every line."""
    lines = audit_lines(audit, lambda row: f"id-{row}")
    assert all(len(line) <= 100 and line.isprintable() and line.strip() for line in lines)
    return " ".join(" ".join(lines).split())


def test_clean_audit_has_only_counts() -> None:
    assert audit_lines(
        make_audit(shared_groups=SharedGroups(column="v", groups=0, rows=())), str
    ) == [
        "Exact copies: 0 of 200 test rows",
        "Near copies: 0 of 200 test rows",
        "Shared groups: 0 of 200 test rows, from 0 groups",
        "Test rows with any of these leaks: 0 of 200",
        "Conflicting labels: 0 texts, in 0 rows",
        "Label implications: 0",
        "Constant labels: 0",
    ]


FINDINGS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "exact": (
        {"exact_copies": ((3, 1), (4, 1))},
        ("copies: 2 of 200 test rows", "Use --split grouped", "id-3 = id-1, id-4 = id-1"),
    ),
    "near": (
        {"near_copies": ((3, 1),)},
        ("much alike", "remove all but one", "id-3 = id-1"),
    ),
    "groups": (
        {"shared_groups": SHARED},
        ("3 of 200 test rows, from 2 groups", "same VideoId", "--split grouped", "id-5, id-6"),
    ),
    "conflicts": (
        {"label_conflicts": ((1, 4), (2, 3, 5))},
        ("2 texts, in 5 rows", "remove the rows", "(id-1, id-4), (id-2, id-3, id-5)"),
    ),
    "implications": (
        {
            "implications": (
                Implication(label="A", implied_label="B", positives=138, share=125 / 138),
            ),
            "implication_count": 1,
        },
        ("A implies B in 90.6% of its 138 rows", "not independent evidence"),
    ),
    "constant": (
        {"never_positive_labels": ("A",), "always_positive_labels": ("B",)},
        ("A has no positive row, B is positive in every row", "--labels"),
    ),
}


@pytest.mark.parametrize(("changes", "expected"), FINDINGS.values(), ids=FINDINGS)
def test_finding_has_meaning_and_remedy(changes: dict[str, Any], expected: tuple[str, ...]) -> None:
    text = joined_lines(make_audit(**changes))
    for part in expected:
        assert part in text


def test_missing_group_column_is_reported() -> None:
    assert "unknown" in joined_lines(make_audit())
    assert "--group-column" in joined_lines(make_audit())


def test_long_lists_are_truncated() -> None:
    text = joined_lines(make_audit(exact_copies=tuple((row, 0) for row in range(100, 137))))
    assert "37 of 200" in text
    assert "id-109 = id-0, and 27 more" in text
    assert "id-110" not in text


def test_control_characters_are_escaped() -> None:
    hostile = "\x1b[31mred\x07\r\n\u202eevil"
    audit = make_audit(
        exact_copies=((1, 2),),
        near_copies=((3, 4),),
        shared_groups=SharedGroups(column=hostile, groups=1, rows=(1,)),
        label_conflicts=((1, 2),),
        implications=(Implication(label=hostile, implied_label=hostile, positives=5, share=1.0),),
        never_positive_labels=(hostile,),
        always_positive_labels=(hostile,),
    )
    lines = audit_lines(audit, lambda row: f"{hostile}{row}")
    assert all(line.isprintable() for line in lines)
    assert "\\x1b[31mred\\x07 \\u202eevil1" in " ".join(" ".join(lines).split())


NOTES = {
    "groups": (
        {"shared_groups": SHARED},
        "The split leaks: of 200 test rows, 3 have the same VideoId as a train or validation row. "
        "Use --split grouped, which keeps groups and equal texts together. "
        "Details: toxbench data check.",
    ),
    "all": (
        {"shared_groups": SHARED, "exact_copies": ((1, 2), (3, 2)), "near_copies": ((4, 2),)},
        "The split leaks: of 200 test rows, 3 have the same VideoId, 2 have the same text, 1 has "
        "nearly the same text as a train or validation row. Use --split grouped, which keeps "
        "groups and equal texts together. Details: toxbench data check.",
    ),
    "near": (
        {"near_copies": ((4, 2),)},
        "The split leaks: of 200 test rows, 1 has nearly the same text as a train or validation "
        "row. Remove near copies, or put them in one group and use --split grouped. "
        "Details: toxbench data check.",
    ),
}


@pytest.mark.parametrize(("changes", "note"), NOTES.values(), ids=NOTES)
def test_leak_note_has_fitting_remedy(changes: dict[str, Any], note: str) -> None:
    assert leak_note(make_audit(**changes)) == note
