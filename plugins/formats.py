"""The ways to write a leaderboard, most of them tabulate's."""

import csv
import html
import io
import json
from collections.abc import Callable

from tabulate import tabulate

from toxbench import ReportFormat, Table, hookimpl, spreadsheet_safe


def markdown(table: Table) -> str:
    """Write a GitHub table with title and notes; markup inside cells is inert."""
    escape_text = [[_inert_markdown(cell) for cell in row] for row in table.rows]
    headers = [_inert_markdown(header) for header in table.headers]
    body = tabulate(escape_text, headers=headers, tablefmt="github", disable_numparse=True)
    notes = "".join(f"\n- {_inert_markdown(note)}" for note in table.notes)
    return f"### {_inert_markdown(table.title)}\n\n{body}\n{notes}\n"


def latex(table: Table) -> str:
    """Write a tabular, the notes as comments; tabulate escapes what LaTeX takes as a command."""
    body = tabulate(table.rows, headers=table.headers, tablefmt="latex", disable_numparse=True)
    notes = (" ".join(note.splitlines()) for note in (table.title, *table.notes))
    return "\n".join([*(f"% {note}" for note in notes), body])


def html_table(table: Table) -> str:
    """Write one HTML table with a caption; everything is escaped."""
    body = tabulate(table.rows, headers=table.headers, tablefmt="html", disable_numparse=True)
    caption = html.escape("; ".join((table.title, *table.notes)))
    return body.replace("<table>", f"<table>\n<caption>{caption}</caption>", 1)


def csv_rows(table: Table) -> str:
    """Write unrounded values; a text that a spreadsheet would run as a formula is quoted."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = table.records[0].keys() if table.records else table.headers
    writer.writerow([spreadsheet_safe(name) for name in names])
    for record in table.records:
        writer.writerow([spreadsheet_safe(value) for value in record.values()])
    return buffer.getvalue().rstrip("\n")


def json_rows(table: Table) -> str:
    """Write title, notes and unrounded rows as one JSON object."""
    content = {"title": table.title, "notes": table.notes, "rows": table.records}
    return json.dumps(content, indent=2, allow_nan=False)


def _tabulated(style: str) -> Callable[[Table], str]:
    def render(table: Table) -> str:
        body = tabulate(table.rows, headers=table.headers, tablefmt=style, disable_numparse=True)
        return "\n".join([table.title, "", body, "", *table.notes])

    return render


def _inert_markdown(text: str) -> str:
    for character in "\\|`*_[]~":
        text = text.replace(character, f"\\{character}")
    return html.escape(" ".join(text.splitlines()), quote=False)


@hookimpl
def toxbench_report_formats() -> list[ReportFormat]:
    """Register every built-in format."""
    return [
        ReportFormat(name="plain", render=_tabulated("simple")),
        ReportFormat(name="github", render=markdown),
        ReportFormat(name="markdown", render=markdown),
        ReportFormat(name="latex", render=latex),
        ReportFormat(name="html", render=html_table),
        ReportFormat(name="csv", render=csv_rows),
        ReportFormat(name="json", render=json_rows),
    ]
