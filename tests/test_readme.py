"""The front page: short, and nothing in it that could go stale unseen."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from toxbench.cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "toxbench" / "docs"
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the sources are not beside the tests")
LONGEST = 250


def help_text() -> str:
    """Return what ``toxbench --help`` prints at 100 columns."""
    result = CliRunner().invoke(cli, ["--help"], prog_name="toxbench", terminal_width=100)
    assert result.exit_code == 0
    return result.output.strip()


def test_it_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) < LONGEST


def test_its_help_is_what_the_command_prints() -> None:
    text = README.read_text(encoding="utf-8")
    shown = text.partition("<!-- written by: toxbench --help -->\n")[2]
    shown = shown.partition("<!-- end of help -->")[0]
    expected = f"```\n{help_text()}\n```\n"
    assert shown == expected, "put this between the markers of the README:\n" + expected


@pytest.mark.parametrize("page", [README, *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


def test_every_guide_is_on_the_front_page() -> None:
    text = README.read_text(encoding="utf-8")
    assert [page.name for page in DOCS.glob("*.md") if f"docs/{page.name})" not in text] == []


def test_every_command_that_is_shown_exists() -> None:
    pages = [README, *DOCS.glob("*.md")]
    shown = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    for command in set(re.findall(r"^toxbench ([a-z-]+)", shown, re.MULTILINE)):
        assert command in cli.commands, f"toxbench {command} is shown, but there is none"
