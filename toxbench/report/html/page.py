"""Renders the HTML report: the order of its sections, the template and the content policy."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import Leaderboard
from toxbench.report.html.elements import Section
from toxbench.report.html.load import ReportData
from toxbench.report.html.sections import curves, facts, scores
from toxbench.report.html.sections.facts import ComputeImportances
from toxbench.report.leaderboard import leaderboard_tables
from toxbench.report.notes import leaderboard_title
from toxbench.report.tables import create_table
from toxbench.util.text import escape_line

if TYPE_CHECKING:
    from jinja2 import Environment

FILE = "report.html"
_NUMBER = re.compile(r"[-+<]?\d[\d.,]*\s*(%|M|MiB|s)?( ±.*| \[.*| to .*)?|-")
_MAX_OPEN_ROWS = 12  # longer tables are collapsed
_SITE_COLUMNS = ("table", "protocol", "rows", "folds", "backbone", "micro-F1", "subset accuracy")
_SITE_NOTES = (
    "The first candidate of each leaderboard, with 95 % confidence intervals on test rows.",
    "(stand-in): trained from small weights in place of those of the named checkpoint.",
)

CreateSection = Callable[[ReportData], Section | None]


def create_sections(data: ReportData, importances: ComputeImportances) -> list[Section]:
    """Return the sections of a report, without those that have no content."""
    functions: tuple[CreateSection, ...] = (
        scores.summary_section,
        scores.leaderboard_section,
        scores.cost_section,
        scores.overfitting_section,
        scores.slice_section,
        scores.other_splits_section,
        scores.label_section,
        curves.train_rows_section,
        curves.learning_section,
        curves.threshold_section,
        scores.calibration_section,
        facts.agreement_section,
        lambda data: facts.search_section(data, importances),
        facts.data_section,
        facts.review_section,
        facts.reproduction_section,
    )
    sections = (create(data) for create in functions)
    return [section for section in sections if section is not None]


def render_report(data: ReportData, importances: ComputeImportances) -> str:
    """Return a report as one escaped HTML file, without scripts and external resources."""
    from markupsafe import Markup

    return _render_page(
        "page.html.j2",
        title=leaderboard_title(data.board),
        sections=create_sections(data, importances),
        svg=Markup,  # matplotlib's, escaped by ElementTree
        max_open_rows=_MAX_OPEN_ROWS,
    )


def render_site(boards: Mapping[str, Leaderboard]) -> str:
    """Return the first page of a site with a row for each leaderboard, by the link to its report.

    Every leaderboard has at least one row.
    """
    rows = [_site_row(board) for board in boards.values()]
    table = create_table("Benchmarks", list(_SITE_COLUMNS), rows, _SITE_NOTES)
    return _render_page("site.html.j2", title=table.title, table=table, links=[*boards])


def _site_row(board: Leaderboard) -> list[str | int]:
    protocol, table = board.protocol, leaderboard_tables(board)[0]
    best = dict(zip(table.headers, table.rows[0], strict=True))
    name = f"{protocol.name} (synthetic)" if protocol.synthetic else protocol.name
    if board.rows[0].stand_in:
        best["backbone"] += " (stand-in)"
    scores = [best[column] for column in _SITE_COLUMNS if column in best]
    return [name, protocol.fingerprint[:12], protocol.rows, len(protocol.folds), *scores]


def render_notebook_table(table: Table) -> str:
    """Return a table with its title and notes as HTML for the output of a notebook's cell."""
    from markupsafe import Markup

    style = Markup(_read("notebook.css"))  # noqa: S704 - our own file
    return _environment().get_template("notebook.html.j2").render(table=table, style=style)


def _render_page(template: str, **content: Any) -> str:
    """Return a page with the style sheet and the content policy."""
    from markupsafe import Markup

    style = _read("style.css")
    content |= {"style": Markup(style), "policy": _content_policy(style)}  # noqa: S704 - our own
    return _environment().get_template(template).render(content)


def _environment() -> "Environment":
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True, loader=FunctionLoader(_read))  # fmt: skip
    environment.filters["printable"] = escape_line
    environment.tests["number"] = lambda text: _NUMBER.fullmatch(text) is not None
    return environment


def _read(name: str) -> str:
    return files("toxbench.report.html").joinpath(name).read_text(encoding="utf-8")


def _content_policy(style: str) -> str:
    """Return a content security policy that allows only this style sheet."""
    digest = b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
