"""The report: one file, safe whatever the table says, with a number for every picture."""

import base64
import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import toxbench
from toxbench.cli.main import main

MARK = "whispered"
HOSTILE = "<script>alert(1)</script>\x1b[31m$x$\u202e"
Cli = Callable[..., subprocess.CompletedProcess[str]]


class Page(HTMLParser):
    """What a browser would see."""

    VOID = ("meta", "br", "img", "link", "hr", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self, tag: str) -> list[str]:
        return [data for name, data in self.words if name == tag]


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """Results of two seeds of a backbone, of a table whose names and comments are hostile."""
    folder = tmp_path_factory.mktemp("report")
    frame = pd.DataFrame({
        "id": [f"<b>{row}</b>" for row in range(80)],
        "text": [f"{MARK} <img src=x onerror=alert(1)> {'fool' * (row % 2)}" for row in range(80)],
        "IsRude": [row % 2 for row in range(80)],
        HOSTILE: [int(row % 3 == 0) for row in range(80)],
        "IsNever": 0,
    })  # fmt: skip
    frame.to_csv(folder / "t<b>.csv", index=False)
    toxbench.run(
        folder / "t<b>.csv", backbones=["bert", "distilbert"], seeds=2,
        weights=[f"bert={checkpoint},distilbert={checkpoint}"], results=folder / "results",
        train={"epochs": 8, "learning_rate": 1e-2}, columns={"text_column": "text"}, plugins=[],
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    assert call("report", str(folder / "results")) == 0
    (path,) = folder.glob("results/*/report.html")
    return path.read_text(encoding="utf-8")


def test_it_is_one_file_that_asks_for_nothing_and_runs_nothing(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert {tag for tag, _ in page.tags}.isdisjoint(
        {"script", "link", "img", "iframe", "object", "embed", "form", "base", "foreignobject"}
    )
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("href", "src", "clip-path"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "url(#"))
    assert len(html.encode()) < 2_000_000


def test_its_policy_allows_its_own_style_sheet_alone(html: str) -> None:
    policy = next(m for m in Page(html).of("meta") if m.get("http-equiv"))["content"] or ""
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "unsafe" not in policy


def test_names_are_text_and_comments_are_not_there(html: str) -> None:
    assert "<script" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html
    assert not {c for c in html if not c.isprintable()} - {"\n"}
    assert MARK not in html


def test_every_picture_has_words_and_numbers(html: str) -> None:
    page = Page(html)
    pictures = page.of("svg")
    assert len(pictures) >= 8
    assert all(p["role"] == "img" and len(p["aria-label"] or "") > 20 for p in pictures)
    figures = re.findall(r"<figure.*?</figure>", html, re.DOTALL)
    assert len(figures) == len(pictures)
    assert all(figure.count("<tbody>") == 1 and "<td" in figure for figure in figures)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', html))
    assert used <= set(ids)


def test_colours_are_the_pages_own(html: str) -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    drawn = re.findall(r'(?:fill|stroke)="([^"]+)"', html)
    for colour in set(drawn):
        name = re.fullmatch(r"var\((--[\w-]+)\)", colour)
        assert colour == "none" or colour.startswith("url(") or (name and f"{name[1]}:" in style)


def test_it_says_what_was_found_and_how_to_get_it_again(html: str) -> None:
    page = Page(html)
    titles = page.text("h2")
    assert titles[:2] == ["Verdict", "Leaderboard"]
    assert titles[-1] == "How to get these numbers again"
    said = " ".join(page.text("p"))
    assert "is first with a micro-F1 of" in said
    assert "Exploratory" in said
    (command,) = page.text("pre")
    assert command.startswith("toxbench run --data 't<b>.csv' --backbones bert,distilbert")
    assert "--epochs 8" in command
    assert "--learning-rate 0.01" in command
    assert str(Path.home()) not in html


def test_the_numbers_are_those_of_the_leaderboard(folder: Path, html: str) -> None:
    board = toxbench.leaderboard(folder / "results")
    for row in board.itertuples():
        assert f"{row.micro_f1:.3f}" in html
        assert f"{row.subset_accuracy_gap:.3f}" in html


def test_the_same_results_give_the_same_bytes(folder: Path, html: str) -> None:
    (path,) = folder.glob("results/*/report.html")
    before = path.read_bytes()
    assert call("report", str(path.parent)) == 0
    assert path.read_bytes() == before


def test_comments_are_there_when_asked_for_and_escaped(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (store,) = folder.glob("results/*")
    data = ("--data", str(folder / "t<b>.csv"), "--text-column", "text")
    assert call("report", str(store), *data) == 2
    assert "add --show-text" in capsys.readouterr().err
    assert call("report", str(store), "--show-text", *data) == 0
    text = (store / "report.html").read_text(encoding="utf-8")
    assert f"{MARK} &lt;img src=x" in text
    assert "<img" not in text
    assert call("report", str(store)) == 0


def test_without_results_it_says_where_to_start(cli: Cli) -> None:
    done = cli("report")
    assert done.returncode == 6
    assert "start with: toxbench run" in done.stderr


def test_baselines_alone_make_a_report(table: Path, tmp_path: Path) -> None:
    toxbench.run(table, backbones=[], results=tmp_path / "r", plugins=[])
    assert call("report", str(tmp_path / "r")) == 0
    (path,) = tmp_path.glob("r/*/report.html")
    assert "Learning curves" not in path.read_text(encoding="utf-8")


def test_a_command_keeps_no_folder_and_no_password(tmp_path: Path) -> None:
    from toxbench.benchmark.plan import command_of
    from toxbench.config import build_run_settings

    settings: dict[str, Any] = {
        "data": tmp_path / "my table.csv", "backbones": ["bert"], "baselines": [], "seeds": 5,
        "weights": [f"bert={tmp_path / 'w'}"], "results": tmp_path,
        "train": {"epochs": 3}, "split": {"split": "grouped", "test": str(tmp_path / "test.csv")},
        "columns": {"labels": ["IsA", "IsB"], "drop_empty": True},
        "backbone": {"bert": {"learning_rate": 1e-4}},
        "tune": {"trials": 7, "storage": "postgresql://u:secret@h/d", "space": {"epochs": "2:8"}},
    }  # fmt: skip
    command = command_of("tune", build_run_settings({}, settings))
    assert command.splitlines() == [
        "toxbench tune --data 'my table.csv' --backbones bert --baselines none --weights bert=w "
        "--trials 7 --labels IsA,IsB --drop-empty --epochs 3 --split grouped --test test.csv "
        "--seeds 5 --space epochs=2:8 --config backbones.toml",
        "# backbones.toml: [backbone.bert] learning_rate = 0.0001",
    ]


def test_the_manifest_keeps_each_command_once(table: Path, tmp_path: Path) -> None:
    for seeds in (1, 1, 2):
        toxbench.run(table, backbones=[], seeds=seeds, results=tmp_path / "r", plugins=[])
    (path,) = tmp_path.glob("r/*/manifest.json")
    commands = json.loads(path.read_text(encoding="utf-8"))["commands"]
    assert commands == [
        "toxbench run --data comments.csv --backbones none --plugins none",
        "toxbench run --data comments.csv --backbones none --plugins none --seeds 2",
    ]
