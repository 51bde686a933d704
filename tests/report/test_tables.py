"""Tables on a terminal: lines fit the width and no text is lost."""

import pytest
from rich.cells import cell_len

from toxbench.plugin.contracts import Table
from toxbench.plugin.registry import Registry
from toxbench.report.tables import table_lines, wrap_words

TABLE = Table(
    title="A title of several words, longer than a narrow terminal",
    headers=("backbone", "micro-F1, global threshold", "weights", "peak memory"),
    rows=(
        (
            "bert [learning_rate=0.0001]",
            "0.653 [0.583, 0.717]",
            "stand-in: a small one",
            "1 MiB",
        ),
        ("毒性のあるコメントを見つけるモデル", "0.1", "-", "22 MiB"),
    ),
    notes=("A note that is long enough to be wrapped somewhere.",),
    records=(),
    best=(0,),
)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 200])
def test_lines_fit_and_words_are_complete(width: int) -> None:
    lines = list(table_lines(TABLE, width))
    assert max(cell_len(line.text) for line in lines) <= width
    text = "".join(line.text for line in lines).replace(" ", "")
    for cell in (*TABLE.headers, *TABLE.rows[1]):
        for word in cell.split():
            assert word in text or width <= 40  # names are cut only at these widths


def test_fitting_table_is_unchanged() -> None:
    texts = [line.text for line in table_lines(TABLE, 200)]
    assert len(texts) == 8
    assert texts[2].split("  ")[0] == "backbone"
    assert "bert [learning_rate=0.0001]" in texts[4]


def test_key_columns_are_repeated() -> None:
    texts = [line.text for line in table_lines(TABLE, 50)]
    blocks = [number for number, text in enumerate(texts) if text.startswith("backbone")]
    assert len(blocks) > 1
    assert sum("bert" in text for text in texts) == len(blocks)
    assert sum("0.653 [0.583, 0.717]" in text for text in texts) == 1  # an interval is one number


def test_best_row_is_strong() -> None:
    strong = [line.text for line in table_lines(TABLE, 200) if line.strong]
    assert len(strong) == 2
    assert strong[0] == TABLE.title
    assert strong[1].startswith("bert")


def test_too_wide_word_is_cut() -> None:
    assert wrap_words("abcdefgh ij", 3) == ["abc", "def", "gh", "ij"]
    assert wrap_words("", 3) == [""]


def test_empty_table_has_no_headers() -> None:
    table = Table(title="A title", headers=("a", "b"), rows=(), notes=("A note.",), records=())
    assert [line.text for line in table_lines(table, 80)] == ["A title", "", "A note."]
    plain = Registry.built_in().formats["plain"].item.render(table)
    assert plain == "A title\n\nA note."
