"""Tables on a terminal: nothing is wider than it, and nothing is lost."""

import pytest
from rich.cells import cell_len

from toxbench.plugin.contracts import Table
from toxbench.report.terminal import lines, wrapped

TABLE = Table(
    title="A title of several words, longer than a narrow terminal",
    headers=("backbone", "micro-F1, global threshold", "weights", "peak memory"),
    rows=(
        (
            "bert [learning_rate=0.0001]",
            "0.653 [0.583, 0.717]",
            "stand-in: some small one",
            "1 MiB",
        ),
        ("毒性のあるコメントを見つけるモデル", "0.1", "-", "22 MiB"),
    ),
    notes=("A note that is long enough to be wrapped somewhere.",),
    records=(),
    best=(0,),
)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 200])
def test_no_line_is_wider_and_no_word_is_lost(width: int) -> None:
    found = list(lines(TABLE, width))
    assert max(cell_len(line.text) for line in found) <= width
    text = "".join(line.text for line in found).replace(" ", "")
    for cell in (*TABLE.headers, *TABLE.rows[1]):
        for word in cell.split():
            assert word in text or width <= 40  # only there are names cut


def test_a_table_that_fits_is_left_as_it_is() -> None:
    found = [line.text for line in lines(TABLE, 200)]
    assert len(found) == 8
    assert found[2].split("  ")[0] == "backbone"
    assert "bert [learning_rate=0.0001]" in found[4]


def test_a_row_is_named_again_where_columns_go_on_below() -> None:
    texts = [line.text for line in lines(TABLE, 50)]
    blocks = [number for number, text in enumerate(texts) if text.startswith("backbone")]
    assert len(blocks) > 1
    assert sum("bert" in text for text in texts) == len(blocks)
    assert sum("0.653 [0.583, 0.717]" in text for text in texts) == 1  # an interval is one number


def test_the_best_row_stands_out() -> None:
    strong = [line.text for line in lines(TABLE, 200) if line.strong]
    assert len(strong) == 2
    assert strong[0] == TABLE.title
    assert strong[1].startswith("bert")


def test_a_word_that_is_too_wide_is_cut() -> None:
    assert wrapped("abcdefgh ij", 3) == ["abc", "def", "gh", "ij"]
    assert wrapped("", 3) == [""]
