"""Audits in words: each finding with its count, its meaning and its remedy; nothing to obey."""

from typing import Any

import pytest
from support import make_audit

from toxbench.records import Audit, Implication, SharedGroups
from toxbench.report.audit import audit_lines, leak_note

SHARED = SharedGroups(column="VideoId", groups=2, rows=(5, 6, 7))


def text(audit: Audit) -> str:
    lines = audit_lines(audit, lambda row: f"id-{row}")
    assert all(len(line) <= 100 and line.isprintable() and line.strip() for line in lines)
    return " ".join(" ".join(lines).split())


def test_without_a_finding_there_are_counts_alone() -> None:
    assert audit_lines(
        make_audit(shared_groups=SharedGroups(column="v", groups=0, rows=())), str
    ) == [
        "Exact copies: 0 of 200 test rows",
        "Near copies: 0 of 200 test rows",
        "Shared groups: 0 of 200 test rows, from 0 groups",
        "Leaks in all: 0 of 200 test rows, each counted once",
        "Conflicting labels: 0 texts, in 0 rows",
        "Label implications: 0",
        "Constant labels: 0",
    ]


FINDINGS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "exact": (
        {"exact_copies": ((3, 1), (4, 1))},
        ("copies: 2 of 200 test rows", "Use --split grouped", "id-3 = id-1, id-4 = id-1"),
    ),
    "near": ({"near_copies": ((3, 1),)}, ("much alike", "remove all but one", "id-3 = id-1")),
    "groups": (
        {"shared_groups": SHARED},
        ("3 of 200 test rows, from 2 groups", "same VideoId", "--split grouped", "id-5, id-6"),
    ),
    "conflicts": (
        {"label_conflicts": ((1, 4), (2, 3, 5))},
        ("2 texts, in 5 rows", "one labelling", "(id-1, id-4), (id-2, id-3, id-5)"),
    ),
    "implications": (
        {
            "implications": (
                Implication(label="A", implied_label="B", positives=138, share=125 / 138),
            )
        },
        ("A implies B in 90.6% of its 138 rows", "no independent evidence"),
    ),
    "constant": (
        {"never_positive_labels": ("A",), "always_positive_labels": ("B",)},
        ("A has no positive row, B is positive in every row", "--labels"),
    ),
}


@pytest.mark.parametrize(("changes", "said"), FINDINGS.values(), ids=FINDINGS)
def test_a_finding_says_what_it_means_and_what_to_do(
    changes: dict[str, Any], said: tuple[str, ...]
) -> None:
    shown = text(make_audit(**changes))
    for words in said:
        assert words in shown


def test_no_column_of_groups_is_told_apart_from_no_shared_group() -> None:
    assert "unknown" in text(make_audit())
    assert "--group-column" in text(make_audit())


def test_long_lists_are_cut() -> None:
    shown = text(make_audit(exact_copies=tuple((row, 0) for row in range(100, 137))))
    assert "37 of 200" in shown
    assert "id-109 = id-0, and 27 more" in shown
    assert "id-110" not in shown


def test_nothing_of_the_table_reaches_the_terminal_unescaped() -> None:
    evil = "\x1b[31mred\x07\r\n\u202eevil"
    audit = make_audit(
        exact_copies=((1, 2),),
        near_copies=((3, 4),),
        shared_groups=SharedGroups(column=evil, groups=1, rows=(1,)),
        label_conflicts=((1, 2),),
        implications=(Implication(label=evil, implied_label=evil, positives=5, share=1.0),),
        never_positive_labels=(evil,),
        always_positive_labels=(evil,),
    )
    lines = audit_lines(audit, lambda row: f"{evil}{row}")
    assert all(line.isprintable() for line in lines)
    assert "\\x1b[31mred\\x07 \\u202eevil1" in " ".join(" ".join(lines).split())


NOTES = {
    "groups": (
        {"shared_groups": SHARED},
        "The split leaks: train or validation rows have the VideoId of 3 of the 200 test rows; "
        "--split grouped keeps groups and equal texts on one side. See: toxbench data check.",
    ),
    "all": (
        {"shared_groups": SHARED, "exact_copies": ((1, 2), (3, 2)), "near_copies": ((4, 2),)},
        "The split leaks: train or validation rows have the VideoId of 3, the text of 2, nearly "
        "the text of 1 of the 200 test rows; --split grouped keeps groups and equal texts on one "
        "side. See: toxbench data check.",
    ),
    "near": (
        {"near_copies": ((4, 2),)},
        "The split leaks: train or validation rows have nearly the text of 1 of the 200 test "
        "rows; remove near copies, or give them one group and use --split grouped. "
        "See: toxbench data check.",
    ),
}


@pytest.mark.parametrize(("changes", "note"), NOTES.values(), ids=NOTES)
def test_the_note_is_one_line_with_a_remedy_that_helps(changes: dict[str, Any], note: str) -> None:
    assert leak_note(make_audit(**changes)) == note
