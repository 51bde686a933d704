"""The description of a table: numbers that can be counted by hand."""

from pathlib import Path

import pytest

from toxbench.data.audit import Description, describe
from toxbench.data.table import read_comments


def describe_csv(folder: Path, content: str) -> Description:
    path = folder / "t.csv"
    path.write_text(content, encoding="utf-8")
    return describe(read_comments(path))


def co_occurrences(facts: Description) -> list[list[int]]:
    assert facts.co_occurrences is not None
    counts: list[list[int]] = facts.co_occurrences.tolist()
    return counts


SMALL = (
    "id,VideoId,text,IsA,IsB,IsC,likes\n"
    "1,v1,aa,1,1,0,7\n2,v1,aaaa,1,0,0,8\n3,v2,aa,0,0,0,9\n4,,aaaaaaaa,1,1,0,7\n5,,AA,0,0,0,8\n"
)


def test_a_small_table_is_counted_correctly(tmp_path: Path) -> None:
    facts = describe_csv(tmp_path, SMALL)
    assert facts.supports == {"IsA": 3, "IsB": 2, "IsC": 0}
    assert co_occurrences(facts) == [[3, 2, 0], [2, 2, 0], [0, 0, 0]]
    assert facts.rows_by_label_count == {0: 2, 1: 1, 2: 2}
    assert facts.text_lengths == pytest.approx((2, 2, 3.6, 7.2, 8))
    assert facts.repeated_rows == 1
    assert facts.groups == (2, 2, 2)


def test_notable_properties_are_noted(tmp_path: Path) -> None:
    assert describe_csv(tmp_path, SMALL).notes == (
        "no positive row, nothing to learn or score: IsC",
        "positive in fewer than 10 rows, so scores are unreliable: IsA (3), IsB (2)",
        "1 rows repeat the text of an earlier row: it may leak into test",
        "rows come in groups, the largest with 2: a random split puts groups on both sides",
        "columns that are not used: 'likes'",
    )


@pytest.mark.parametrize(
    ("positives", "expected"),
    [
        (9, "positive in fewer than 10 rows, so scores are unreliable: IsA (9)"),
        (30, "positive in every row, nothing to learn: IsA"),
    ],
)
def test_rare_and_constant_labels_are_noted(tmp_path: Path, positives: int, expected: str) -> None:
    rows = "".join(f"text {row},{int(row < positives)}\n" for row in range(30))
    (note,) = describe_csv(tmp_path, "text,IsA\n" + rows).notes
    assert note == expected


def test_an_ordinary_table_has_no_notes(tmp_path: Path) -> None:
    rows = "".join(f"v{row},text {row},{int(row < 10)}\n" for row in range(30))
    facts = describe_csv(tmp_path, "VideoId,text,IsA\n" + rows)
    assert facts.notes == ()
    assert facts.groups == (30, 1, 0)


@pytest.mark.parametrize(
    ("header", "cell", "groups"), [("text,IsA", "", None), ("VideoId,text,IsA", ",", (0, 0, 2))]
)
def test_tables_without_groups_are_described(
    tmp_path: Path, header: str, cell: str, groups: tuple[int, int, int] | None
) -> None:
    facts = describe_csv(tmp_path, f"{header}\n{cell}x,1\n{cell}y,0\n")
    assert facts.groups == groups


def test_counts_do_not_overflow_uint8(tmp_path: Path) -> None:
    rows = "".join(f"text {row},1,1\n" for row in range(300))
    facts = describe_csv(tmp_path, "text,IsA,IsB\n" + rows)
    assert co_occurrences(facts) == [[300, 300], [300, 300]]
    assert facts.supports == {"IsA": 300, "IsB": 300}


def test_the_real_table_matches_its_readme(real_table: Path) -> None:
    facts = describe(read_comments(real_table))
    minimum, median, mean, _, maximum = facts.text_lengths
    assert 0 < minimum < median == pytest.approx(101, abs=1)
    assert round(mean) == 186
    assert maximum == 4421
    assert facts.repeated_rows == 3
    assert facts.groups == (12, 274, 16)
    assert facts.rows_by_label_count[0] == 538
    assert sum(facts.rows_by_label_count.values()) == 1000
