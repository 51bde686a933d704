"""The page: which sections it has, in which order, and how they become one file."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from toxbench.report.html.elements import Section
from toxbench.report.html.load import ReportData
from toxbench.report.html.sections import curves, facts, labels, scores
from toxbench.report.html.sections.facts import Importances
from toxbench.report.notes import title
from toxbench.util.text import escape_line

FILE = "report.html"
_NUMBER = re.compile(r"[-+<]?\d[\d.,]*\s*(%|M|MiB|s)?( ±.*| \[.*| to .*)?|-")
_OPEN_ROWS = 12  # longer tables start folded
_TEMPLATE, _STYLE = "page.html.j2", "style.css"

Write = Callable[[ReportData], Section | None]


def sections(findings: ReportData, importances: Importances) -> list[Section]:
    """Write every section that there is something to say in."""
    writers: tuple[Write, ...] = (
        scores.conclusion,
        scores.leaderboard,
        scores.cost,
        scores.overfitting,
        labels.per_label,
        curves.learning,
        curves.thresholds,
        labels.calibrated,
        facts.agreeing,
        lambda findings: facts.searches(findings, importances),
        facts.data,
        facts.to_look_at,
        facts.reproduce,
    )
    found = (write(findings) for write in writers)
    return [section for section in found if section is not None]


def render_report(findings: ReportData, importances: Importances) -> str:
    """Return one HTML file: no script, no request to anywhere, and everything escaped.

    Args:
        findings: what is stored.
        importances: of the hyperparameters of some trials; empty where they cannot be told.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here = files("toxbench.report.html")
    style = here.joinpath(_STYLE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)  # fmt: skip
    environment.filters["printable"] = escape_line
    environment.tests["number"] = lambda text: _NUMBER.fullmatch(text) is not None
    template = environment.from_string(here.joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    content: dict[str, Any] = {
        "title": title(findings.board),
        "sections": sections(findings, importances),
        "style": Markup(style),  # noqa: S704 - our own file
        "svg": Markup,  # matplotlib's, escaped by ElementTree
        "policy": _policy(style),
        "open_rows": _OPEN_ROWS,
    }
    return template.render(content)


def _policy(style: str) -> str:
    """Allow this very style sheet and nothing else."""
    digest = b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
