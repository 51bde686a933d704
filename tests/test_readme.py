"""README and guides: short, with links, commands and generated tables that are current."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from generated_docs import DOCS, PACKAGE_PAGE, PARTS, ROOT, package_page, pattern

from toxbench.cli.main import cli

README = ROOT / "README.md"
INDEX = DOCS / "index.md"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if page != PACKAGE_PAGE]
MAX_WORDS = 900
pytestmark = pytest.mark.skipif(not INDEX.is_file(), reason="the sources are not beside the tests")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def links(page: Path) -> list[tuple[Path, str]]:
    """Return the file and the anchor of each relative link of a page."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    parts = [target.partition("#") for target in targets if "://" not in target]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in parts]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shown_commands(text: str) -> Iterator[str]:
    """Yield the words after ``toxbench`` of each command in a code block or between backticks."""
    lines = re.findall(r"^(?:torchrun .* --no-python )?toxbench (.*)$", text, re.MULTILINE)
    for shown in [*lines, *re.findall(r"`toxbench ([^`]*)`", text)]:
        yield shown.partition("#")[0].partition("&&")[0].strip()


def find_command(words: list[str]) -> click.Command | None:
    """Return the command that the words name; None if there is none."""
    command: click.Command | None = cli
    for word in words:
        if not isinstance(command, click.Group) or word.startswith("-"):
            break
        command = command.commands.get(word)
    return command


def problem_of(shown: str) -> str | None:
    """Return what is wrong with a command, or None."""
    words = shown.split()
    if words and words[0] == "COMMAND":
        return None
    command = find_command(words)
    if command is None:
        return f"there is no such command: toxbench {shown}"
    options = {"-h", "--help"}.union(*(param.opts for param in command.params))
    unknown = [option for option in re.findall(r"(?<!\S)--[\w-]+", shown) if option not in options]
    return f"unknown options {unknown}: toxbench {shown}" if unknown else None


@pytest.mark.parametrize("page", [README, *PAGES], ids=name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = [
        (str(target), anchor)
        for target, anchor in links(page)
        if not target.exists() or (anchor and anchor not in anchors(target))
    ]
    assert broken == []


def test_index_links_to_every_guide() -> None:
    assert INDEX in {target for target, _ in links(README)}
    assert {target for target, _ in links(INDEX)} == {page for page in PAGES if page != INDEX}


@pytest.mark.parametrize("page", [README, *PAGES], ids=name)
def test_pages_are_short(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for source in PARTS:
        text = pattern(source).sub("", text)
    words = [word for word in text.split() if re.search(r"\w", word)]
    assert len(words) <= MAX_WORDS


@pytest.mark.parametrize("page", [README, *PAGES], ids=name)
def test_shown_commands_exist(page: Path) -> None:
    shown = shown_commands(page.read_text(encoding="utf-8"))
    assert [problem for words in shown if (problem := problem_of(words))] == []


@pytest.mark.parametrize(
    ("shown", "is_valid"),
    [
        ("run --folds 5 comments.csv", True),
        ("data check FILE --split grouped", True),
        ("run --tune", False),
        ("data look", False),
        ("watch", False),
    ],
)
def test_unknown_commands_are_found(shown: str, is_valid: bool) -> None:
    assert (problem_of(shown) is None) == is_valid


@pytest.mark.parametrize("source", PARTS)
def test_generated_parts_are_current(source: str) -> None:
    page, generate = PARTS[source]
    part = pattern(source).search((DOCS / page).read_text(encoding="utf-8"))
    assert part is not None, f"{page} has no markers of {source}"
    assert part[1] == generate(), "python tests/helpers/generated_docs.py writes it"


def test_package_page_is_readme_without_links() -> None:
    text = PACKAGE_PAGE.read_text(encoding="utf-8")
    assert text == package_page(), "python tests/helpers/generated_docs.py writes it"
    assert "](" not in text
