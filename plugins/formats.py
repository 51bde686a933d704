"""The built-in formats of tables, most of them from tabulate."""

import csv
import html
import io
import json
from collections.abc import Callable

from tabulate import tabulate

from toxbench import ReportFormat, Table, hookimpl, spreadsheet_safe


def markdown(table: Table) -> str:
    """Render a GitHub table with title and notes; markup in cells is escaped."""
    rows = [[_escape_markdown(cell) for cell in row] for row in table.rows]
    headers = [_escape_markdown(header) for header in table.headers]
    body = tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)
    notes = "".join(f"\n- {_escape_markdown(note)}" for note in table.notes)
    return f"### {_escape_markdown(table.title)}\n\n{body}\n{notes}\n"


def latex(table: Table) -> str:
    """Render a tabular with the notes as comments; tabulate escapes LaTeX commands."""
    body = tabulate(table.rows, headers=table.headers, tablefmt="latex", disable_numparse=True)
    notes = (" ".join(note.splitlines()) for note in (table.title, *table.notes))
    return "\n".join([*(f"% {note}" for note in notes), body])


def html_table(table: Table) -> str:
    """Render one HTML table with a caption; all text is escaped."""
    body = tabulate(table.rows, headers=table.headers, tablefmt="html", disable_numparse=True)
    caption = html.escape("; ".join((table.title, *table.notes)))
    return body.replace("<table>", f"<table>\n<caption>{caption}</caption>", 1)


def csv_rows(table: Table) -> str:
    """Render unrounded values; text that is a formula to spreadsheets is quoted."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = table.records[0].keys() if table.records else table.headers
    writer.writerow([spreadsheet_safe(name) for name in names])
    for record in table.records:
        writer.writerow([spreadsheet_safe(value) for value in record.values()])
    return buffer.getvalue().rstrip("\n")


def json_rows(table: Table) -> str:
    """Render title, notes and unrounded rows as one JSON object."""
    content = {"title": table.title, "notes": table.notes, "rows": table.records}
    return json.dumps(content, indent=2, allow_nan=False)


def _tabulate_in(style: str) -> Callable[[Table], str]:
    def render(table: Table) -> str:
        body = tabulate(table.rows, headers=table.headers, tablefmt=style, disable_numparse=True)
        lines = [body, ""] if table.rows else []
        return "\n".join([table.title, "", *lines, *table.notes])

    return render


def _escape_markdown(text: str) -> str:
    for character in "\\|`*_[]~":
        text = text.replace(character, f"\\{character}")
    return html.escape(" ".join(text.splitlines()), quote=False)


@hookimpl
def toxbench_report_formats() -> list[ReportFormat]:
    """Register every built-in format."""
    return [
        ReportFormat(name="plain", render=_tabulate_in("simple")),
        ReportFormat(name="github", render=markdown),
        ReportFormat(name="markdown", render=markdown),
        ReportFormat(name="latex", render=latex),
        ReportFormat(name="html", render=html_table),
        ReportFormat(name="csv", render=csv_rows),
        ReportFormat(name="json", render=json_rows),
    ]
