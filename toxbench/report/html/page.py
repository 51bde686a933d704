"""Renders the HTML report: the order of its sections, the template and the content policy."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from toxbench.plugin.contracts import Table
from toxbench.report.html.elements import Section
from toxbench.report.html.load import ReportData
from toxbench.report.html.sections import curves, facts, labels, scores, splits
from toxbench.report.html.sections.facts import ComputeImportances
from toxbench.report.notes import leaderboard_title
from toxbench.util.text import escape_line

if TYPE_CHECKING:
    from jinja2 import Environment

FILE = "report.html"
_NUMBER = re.compile(r"[-+<]?\d[\d.,]*\s*(%|M|MiB|s)?( ±.*| \[.*| to .*)?|-")
_MAX_OPEN_ROWS = 12  # longer tables are collapsed
_TEMPLATE, _STYLE = "page.html.j2", "style.css"

CreateSection = Callable[[ReportData], Section | None]


def create_sections(data: ReportData, importances: ComputeImportances) -> list[Section]:
    """Return the sections of a report, without those that have no content."""
    functions: tuple[CreateSection, ...] = (
        scores.summary_section,
        scores.leaderboard_section,
        scores.cost_section,
        scores.overfitting_section,
        splits.other_splits_section,
        labels.label_section,
        curves.learning_section,
        curves.threshold_section,
        labels.calibration_section,
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

    style = _read(_STYLE)
    content: dict[str, Any] = {
        "title": leaderboard_title(data.board),
        "sections": create_sections(data, importances),
        "style": Markup(style),  # noqa: S704 - our own file
        "svg": Markup,  # matplotlib's, escaped by ElementTree
        "policy": _content_policy(style),
        "max_open_rows": _MAX_OPEN_ROWS,
    }
    return _environment().get_template(_TEMPLATE).render(content)


def render_notebook_table(table: Table) -> str:
    """Return a table with its title and notes as HTML for the output of a notebook's cell."""
    from markupsafe import Markup

    style = Markup(_read("notebook.css"))  # noqa: S704 - our own file
    return _environment().get_template("notebook.html.j2").render(table=table, style=style)


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
