"""The HTML report: one safe file, with a table for every picture."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support import write_checkpoint

import toxbench
from toxbench.cli.main import main

pytestmark = pytest.mark.slow

COMMENT_WORD = "whispered"
HOSTILE = "<script>alert(1)</script>\x1b[31m$x$\u202e"
Cli = Callable[..., subprocess.CompletedProcess[str]]


class Page(HTMLParser):
    """Tags and texts of a page, as a browser parses them."""

    VOID_TAGS = ("meta", "br", "img", "link", "hr", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open_tags: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID_TAGS:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open_tags[-1] if self.open_tags else "", data))

    def attributes_of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def texts_in(self, tag: str) -> list[str]:
        return [data for name, data in self.texts if name == tag]


def exit_code(*words: str) -> int:
    """Run a command in this process."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """Results of two backbones and seeds, for a table with hostile names and comments."""
    folder = tmp_path_factory.mktemp("report")
    frame = pd.DataFrame({
        "id": [f"<b>{row}</b>" for row in range(80)],
        "text": [
            f"{COMMENT_WORD} <img src=x onerror=alert(1)> {'fool' * (row % 2)} {row}"
            for row in range(80)
        ],
        "IsRude": [row % 2 for row in range(80)],
        HOSTILE: [int(row % 3 == 0) for row in range(80)],
        "IsNever": 0,
    })  # fmt: skip
    frame.to_csv(folder / "t<b>.csv", index=False)
    distilbert = write_checkpoint(folder / "tiny-distilbert", "distilbert")
    toxbench.run(
        folder / "t<b>.csv", backbones=["bert", "distilbert"], seeds=2,
        weights=[f"bert={checkpoint},distilbert={distilbert}"], results=folder / "results",
        train={"epochs": 8, "learning_rate": 1e-2}, columns={"text_column": "text"}, plugins=[],
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    assert exit_code("report", str(folder / "results")) == 0
    (path,) = folder.glob("results/*/report.html")
    return path.read_text(encoding="utf-8")


def test_averages_are_added_on_request(folder: Path, html: str, tmp_path: Path) -> None:
    shutil.copytree(folder / "results", tmp_path / "results")
    assert exit_code("report", str(tmp_path / "results"), "--ensembles") == 0
    (path,) = tmp_path.glob("results/*/report.html")
    assert "bert (2 seeds averaged)" in path.read_text(encoding="utf-8")
    assert "seeds averaged" not in html


def test_file_has_no_scripts_or_external_links(html: str) -> None:
    page = Page(html)
    assert page.open_tags == []
    assert {tag for tag, _ in page.tags}.isdisjoint(
        {"script", "link", "img", "iframe", "object", "embed", "form", "base", "foreignobject"}
    )
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("href", "src", "clip-path"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "url(#"))
    assert len(html.encode()) < 2_000_000


def test_policy_allows_only_the_style_sheet(html: str) -> None:
    policy = (
        next(m for m in Page(html).attributes_of("meta") if m.get("http-equiv"))["content"] or ""
    )
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "unsafe" not in policy


def test_names_are_escaped_and_comments_omitted(html: str) -> None:
    assert "<script" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html
    assert not {c for c in html if not c.isprintable()} - {"\n"}
    assert COMMENT_WORD not in html


def test_picture_has_description_and_table(html: str) -> None:
    page = Page(html)
    pictures = page.attributes_of("svg")
    assert len(pictures) >= 8
    assert all(p["role"] == "img" and len(p["aria-label"] or "") > 20 for p in pictures)
    figures = re.findall(r"<figure.*?</figure>", html, re.DOTALL)
    assert len(figures) == len(pictures)
    assert all(figure.count("<tbody>") == 1 and "<td" in figure for figure in figures)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'(?:href="|url\()#([^")]+)', html))
    assert references <= set(ids)


def test_colours_are_custom_properties(html: str) -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    colours = re.findall(r'(?:fill|stroke)="([^"]+)"', html)
    for colour in set(colours):
        name = re.fullmatch(r"var\((--[\w-]+)\)", colour)
        assert colour == "none" or colour.startswith("url(") or (name and f"{name[1]}:" in style)


def test_report_has_summary_and_commands(html: str) -> None:
    page = Page(html)
    titles = page.texts_in("h2")
    assert titles[:2] == ["Summary", "Leaderboard"]
    assert titles[-1] == "How to reproduce these results"
    paragraphs = " ".join(page.texts_in("p"))
    assert "ranks first with a micro-F1 of" in paragraphs
    assert "Exploratory" in paragraphs
    (command,) = page.texts_in("pre")
    assert command.startswith("toxbench run --data 't<b>.csv' --backbones bert,distilbert")
    assert "--epochs 8" in command
    assert "--learning-rate 0.01" in command
    assert str(Path.home()) not in html


def test_numbers_equal_the_leaderboard(folder: Path, html: str) -> None:
    board = toxbench.load(folder / "results").leaderboard
    for row in board.itertuples():
        assert f"{row.micro_f1:.3f}" in html
        assert f"{row.subset_accuracy_gap:.3f}" in html


def test_report_is_reproducible(folder: Path, html: str) -> None:
    (path,) = folder.glob("results/*/report.html")
    before = path.read_bytes()
    assert exit_code("report", str(path.parent)) == 0
    assert path.read_bytes() == before


def test_show_text_adds_escaped_comments(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store,) = folder.glob("results/*")
    data = ("--data", str(folder / "t<b>.csv"), "--text-column", "text")
    assert exit_code("report", str(store), *data) == 2
    assert "add --show-text" in capsys.readouterr().err
    assert exit_code("report", str(store), "--show-text", *data) == 0
    text = (store / "report.html").read_text(encoding="utf-8")
    assert f"{COMMENT_WORD} &lt;img src=x" in text
    assert "<img" not in text
    assert exit_code("report", str(store)) == 0


def test_report_without_results_suggests_run(cli: Cli) -> None:
    result = cli("report")
    assert result.returncode == 6
    assert "start with: toxbench run" in result.stderr


def test_report_with_only_baselines(table: Path, tmp_path: Path) -> None:
    toxbench.run(table, backbones=[], results=tmp_path / "r", plugins=[])
    assert exit_code("report", str(tmp_path / "r")) == 0
    (path,) = tmp_path.glob("r/*/report.html")
    assert "Learning curves" not in path.read_text(encoding="utf-8")


def test_command_omits_folders_and_passwords(tmp_path: Path) -> None:
    from toxbench.config import build_run_settings, command_line

    settings: dict[str, Any] = {
        "data": tmp_path / "my table.csv", "backbones": ["bert"], "baselines": [], "seeds": 5,
        "weights": [f"bert={tmp_path / 'w'}"], "results": tmp_path,
        "train": {"epochs": 3}, "split": {"split": "grouped", "test": str(tmp_path / "test.csv")},
        "columns": {"labels": ["IsA", "IsB"], "drop_empty": True},
        "backbone": {"bert": {"learning_rate": 1e-4}},
        "tune": {"trials": 7, "storage": "postgresql://u:secret@h/d", "space": {"epochs": "2:8"}},
    }  # fmt: skip
    command = command_line("tune", build_run_settings({}, settings))
    assert command.splitlines() == [
        "toxbench tune --data 'my table.csv' --backbones bert --baselines none --weights bert=w "
        "--trials 7 --labels IsA,IsB --drop-empty --epochs 3 --split grouped --test test.csv "
        "--seeds 5 --space epochs=2:8 --config candidates.toml",
        "# candidates.toml: [backbone.bert] learning_rate = 0.0001",
    ]


def test_manifest_has_each_command_once(table: Path, tmp_path: Path) -> None:
    for seeds in (1, 1, 2):
        toxbench.run(table, backbones=[], seeds=seeds, results=tmp_path / "r", plugins=[])
    (path,) = tmp_path.glob("r/*/manifest.json")
    commands = json.loads(path.read_text(encoding="utf-8"))["commands"]
    assert commands == [
        "toxbench run --data comments.csv --backbones none --plugins none",
        "toxbench run --data comments.csv --backbones none --plugins none --seeds 2",
    ]
