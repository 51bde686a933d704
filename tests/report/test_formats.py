"""The built-in formats: the same content in each, and hostile text stays text."""

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from toxbench import Table
from toxbench.errors import SettingsError
from toxbench.plugin.registry import Registry

FORMATS = ("plain", "github", "markdown", "latex", "html", "csv", "json")
Render = Callable[[str, Table], str]


def make_table(title: str = "Leaderboard of x.csv", weights: str = "hub", rows: int = 1) -> Table:
    return Table(
        title=title,
        headers=("backbone", "weights", "micro-F1"),
        rows=(("bert", weights, "0.333 ± 0.100"),) * rows,
        notes=("Synthetic sample.", "stand-in rows: a_b"),
        records=(
            {
                "candidate": "bert",
                "weights": weights,
                "micro_f1": 1 / 3,
                "micro_f1_gap": -0.1,
                "parameters": 22_713_216,
                "stand_in": True,
                "peak_memory_bytes": None,
            },
        )
        * rows,
    )


@pytest.fixture(scope="module")
def render() -> Render:
    registry = Registry.discover()
    return lambda name, table: registry.report_format(name).item.render(table)


class Elements(HTMLParser):
    """Tags of a page, and the texts of its cells and caption."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag in {"td", "th", "caption"}:
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data


def table_lines(page: str) -> list[str]:
    return [line for line in page.split("\n") if line.startswith("|")]


def cells_of(line: str) -> list[str]:
    """Split a Markdown table line at the pipes that are not escaped."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_format_writes_every_row(render: Render, name: str, rows: int) -> None:
    assert render(name, make_table(rows=rows)).count("bert") == rows


@pytest.mark.parametrize("name", ["plain", "github", "markdown", "html", "json"])
def test_readable_formats_have_title_and_notes(render: Render, name: str) -> None:
    page = render(name, make_table())
    for text in ("Leaderboard of x.csv", "Synthetic sample.", "stand-in rows"):
        assert text in page


@pytest.mark.parametrize("name", ["plain", "github", "markdown", "latex", "html"])
def test_readable_formats_have_rounded_text(render: Render, name: str) -> None:
    page = render(name, make_table())
    assert "0.333 ± 0.100" in page
    assert "0.33333" not in page


def test_unknown_format_suggests_nearest_name() -> None:
    with pytest.raises(SettingsError, match="did you mean 'markdown'"):
        Registry.discover().report_format("markdwn")


def test_markdown_has_heading_table_and_list(render: Render) -> None:
    page = render("markdown", make_table())
    assert page.startswith("### Leaderboard of x.csv\n\n|")
    assert cells_of(table_lines(page)[0]) == ["backbone", "weights", "micro-F1"]
    assert set(table_lines(page)[1]) <= set("|-: ")
    assert cells_of(table_lines(page)[2]) == ["bert", "hub", "0.333 ± 0.100"]
    assert "\n- Synthetic sample.\n- stand-in rows: a\\_b\n" in page
    assert render("github", make_table()) == page


def test_csv_has_unrounded_numbers(render: Render) -> None:
    frame = pd.read_csv(io.StringIO(render("csv", make_table(rows=2))))
    assert frame["micro_f1"].tolist() == [1 / 3, 1 / 3]
    assert frame["micro_f1_gap"].tolist() == [-0.1, -0.1]
    assert frame["parameters"].tolist() == [22_713_216] * 2
    assert frame["stand_in"].tolist() == [True, True]
    assert frame["peak_memory_bytes"].isna().all()


def test_json_round_trip_keeps_content(render: Render) -> None:
    table = make_table(weights='"quoted"\n')
    content = json.loads(render("json", table))
    assert content["title"] == table.title
    assert content["notes"] == list(table.notes)
    assert content["rows"] == list(table.records)


HOSTILE = {
    "formula": "=cmd()",
    "pipe": "a|b",
    "two_pipes": "||",
    "tag": "<script>alert(1)</script>",
    "entity": "&lt;b&gt;",
    "quote": "\"'><img src=x onerror=y>",
    "new_line": "a\nb",
    "emphasis": "*a* __b__",
    "code": "`a`",
    "link": "[a](http://b)",
    "image": "![a](b)",
    "escaped_pipe": "a\\|b",
    "comma": 'a,"b',
}
hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)


@pytest.mark.faults(40)
@hostile
def test_markdown_escapes_markup(render: Render, text: str) -> None:
    page = render("markdown", make_table(title=text, weights=text))
    row = cells_of(table_lines(page)[-1])
    assert len(table_lines(page)) == 3
    assert len(row) == 3
    for escaped in (page.split("\n", 1)[0].removeprefix("### "), row[1]):
        bare = re.sub(r"\\[\\|`*_\[\]]|&(?:lt|gt|amp);", "", escaped)
        assert not set(bare) & set("\\|`*_[]<>&")
        plain = re.sub(r"\\(.)", r"\1", escaped)
        for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
            plain = plain.replace(entity, character)
        assert plain == text.replace("\n", " ")


@pytest.mark.faults(40)
@hostile
def test_html_adds_no_hostile_tag(render: Render, text: str) -> None:
    page = Elements(render("html", make_table(title=text, weights=text)))
    assert page.tags == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert page.texts[0].startswith(text)
    assert [cell.strip() for cell in page.texts[4:]] == ["bert", text, "0.333 ± 0.100"]


@pytest.mark.faults(40)
@hostile
def test_csv_text_stays_in_one_cell(render: Render, text: str) -> None:
    page = render("csv", make_table(title=text, weights=text, rows=2))
    rows = list(csv.DictReader(io.StringIO(page, newline="")))
    assert len(rows) == 2
    assert {row["weights"].removeprefix("'") for row in rows} == {text}
    assert {row["micro_f1"] for row in rows} == {repr(1 / 3)}


@pytest.mark.faults(40)
@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_quotes_spreadsheet_formulas(render: Render, start: str) -> None:
    page = render("csv", make_table(weights=f"{start}cmd()"))
    assert f"'{start}cmd()" in page
    assert f",{start}cmd()" not in page


@pytest.mark.faults(40)
@pytest.mark.parametrize("text", ["a_b", "50 %", "a & b", "#1", "$x$", "{a}", "a\\input{b}"])
def test_latex_escapes_special_characters(render: Render, text: str) -> None:
    page = render("latex", make_table(weights=text))
    row = next(line for line in page.split("\n") if "bert" in line).removesuffix("\\\\")
    cells = re.split(r"(?<!\\)&", row)
    assert len(cells) == 3
    without = re.sub(r"\\[&%$#_{}]|\\textbackslash\{\}", "", cells[1])
    assert not set(without) & set("\\&%$#_{}")


@hostile
@pytest.mark.faults(40)
@pytest.mark.parametrize("name", ["markdown", "html", "csv", "latex"])
def test_headers_and_notes_are_escaped(render: Render, name: str, text: str) -> None:
    plain = make_table()
    table = replace(
        plain,
        headers=(text, *plain.headers[1:]),
        notes=(f"{text}\n{text}",),
        records=({text: 1, "weights": "hub"},),
    )
    page = render(name, table)
    if name == "markdown":
        assert len(cells_of(table_lines(page)[0])) == 3
        assert not {"<", ">"} & set(page)
    elif name == "html":
        assert Elements(page).tags == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    elif name == "csv":
        (header, row) = csv.reader(io.StringIO(page, newline=""))
        assert header[0].removeprefix("'") == text
        assert not header[0].startswith("=")
        assert row == ["1", "hub"]
    else:
        before = page[: page.index("\\begin{tabular}")]
        assert all(line.startswith("%") for line in before.splitlines())
