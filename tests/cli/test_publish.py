"""``toxbench publish``: a site of pages that load nothing."""

import re
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from forks import Forks
from support import write_table

from toxbench.store.cells import CellStore, find_store, stores_below

pytestmark = pytest.mark.slow

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    """Results of baselines on two tables."""
    folder = tmp_path_factory.mktemp("published")
    for name, rows, folds in (("<b>.csv", 60, "2"), ("long.csv", 90, "3")):
        write_table(folder / name, rows)
        result = forks.run(
            "run", "--data", name, "--quiet", "--backbones", "none", "--folds", folds, cwd=folder
        )
        assert result.code == 0, result.err
    return folder / "results"


@pytest.fixture(scope="module")
def site(forks: Forks, results: Path) -> Path:
    result = forks.run("publish", "site", cwd=results.parent)
    assert (result.code, result.out) == (0, "2 protocols in site/index.html\n"), result.err
    return results.parent / "site"


def table_rows(page: Path) -> list[list[str]]:
    """Return the texts of the cells of each row of the first table's body."""
    body = re.search(r"<tbody>(.*?)</tbody>", page.read_text(encoding="utf-8"), re.DOTALL)
    assert body is not None
    rows = re.findall(r"<tr.*?>(.*?)</tr>", body[1], re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[unescape(re.sub(r"<[^>]*>", "", cell)) for cell in row] for row in cells]


def test_index_has_a_row_for_each_protocol(site: Path, results: Path, cli: Cli) -> None:
    rows = {row[0]: row[1:] for row in table_rows(site / "index.html")}
    assert rows.keys() == {"<b>.csv", "long.csv"}
    assert (rows["<b>.csv"][1:3], rows["long.csv"][1:3]) == (["60", "2"], ["90", "3"])
    for store in stores_below(results):
        protocol = store.protocol()
        *_, best, score, _ = rows[protocol.name]
        assert best == "tfidf-logreg"
        assert re.fullmatch(r"[01]\.\d+ \[.*\]", score)
        assert score in cli("leaderboard", str(store.folder)).stdout


def test_links_lead_to_reports(site: Path, results: Path, cli: Cli) -> None:
    links = re.findall(r'href="([^"]*)"', (site / "index.html").read_text(encoding="utf-8"))
    fingerprints = {store.protocol().fingerprint[:12] for store in stores_below(results)}
    assert set(links) == {f"{name}/report.html" for name in fingerprints}
    store = find_store(results)
    assert cli("report", str(store.folder)).returncode == 0
    report = site / store.protocol().fingerprint[:12] / "report.html"
    assert report.read_bytes() == (store.folder / "report.html").read_bytes()


def test_index_loads_and_runs_nothing(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in unescape(page)
    assert not re.search(r"<script|<link|<img|<iframe|https?:|<b>|\bon\w+=", page)
    assert "w59" not in page  # a word of a comment


def test_one_protocol_can_be_published(cli: Cli, results: Path, tmp_path: Path) -> None:
    store = find_store(results)
    assert cli("publish", "site", str(store.folder)).returncode == 0
    assert [row[0] for row in table_rows(tmp_path / "site/index.html")] == [store.protocol().name]


def test_two_folders_of_one_protocol_are_refused(cli: Cli, results: Path, tmp_path: Path) -> None:
    store = CellStore(stores_below(results)[0].folder)
    result = cli("publish", "site", str(results), str(store.folder))
    assert result.returncode == 2
    assert "hold results of one protocol; first: toxbench merge" in result.stderr
    assert not (tmp_path / "site").exists()
