"""The parts of the guides that are generated from the code, and the page of the package index.

``python tests/helpers/generated_docs.py`` writes them into toxbench/docs; tests/test_readme.py
compares. A part stands between ``<!-- written by: SOURCE -->`` and ``<!-- end of SOURCE -->``.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from click import Option
from click.testing import CliRunner
from fault_matrix import as_markdown
from pydantic import BaseModel
from tabulate import tabulate

from toxbench.cli.main import cli
from toxbench.cli.metrics import metrics_table
from toxbench.plugin.registry import Registry
from toxbench.settings import (
    ColumnSettings,
    RunSettings,
    SplitSettings,
    TrainSettings,
    TuneSettings,
)

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "toxbench" / "docs"
PACKAGE_PAGE = DOCS / "package.md"
_TABLES: Mapping[str, type[BaseModel]] = {
    "Top level": RunSettings,
    "`[columns]`": ColumnSettings,
    "`[train]`, and `[backbone.NAME]` for one backbone": TrainSettings,
    "`[split]`": SplitSettings,
    "`[tune]`": TuneSettings,
}


def help_block() -> str:
    """Return what ``toxbench --help`` prints at 100 columns, as a code block."""
    result = CliRunner().invoke(cli, ["--help"], prog_name="toxbench", terminal_width=100)
    assert result.exit_code == 0
    return f"```\n{result.output.strip()}\n```"


def metrics_block() -> str:
    """Return the output of ``toxbench metrics --format github``."""
    return Registry.discover([]).report_format("github").item.render(metrics_table()).strip()


def settings_block() -> str:
    """Return a table of the keys of each table of a config file, with defaults and meanings."""
    return "\n\n".join(f"### {title}\n\n{_keys(kind)}" for title, kind in _TABLES.items())


def _keys(kind: type[BaseModel]) -> str:
    rows = [
        (f"`{name}`", _default_text(field.default), field.description or _option_help(name))
        for name, field in kind.model_fields.items()
        if not isinstance(field.default, dict | BaseModel)
    ]
    return tabulate(rows, ("key", "default", "meaning"), "github")


def _option_help(name: str) -> str:
    """Return the help of the option of that name, without the default at its end."""
    option = next(p for p in cli.commands["run"].params if p.name == name)
    assert isinstance(option, Option)
    text = re.sub(r" \[[^]]*\]$", "", option.help or "").removesuffix(".")
    return text[:1].lower() + text[1:]


def _default_text(value: object) -> str:
    if value is None or value == () or value == "":
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


# Source -> page and the function that generates the part.
PARTS: Mapping[str, tuple[str, Callable[[], str]]] = {
    "toxbench --help": ("reference/cli.md", help_block),
    "toxbench metrics --format github": ("reference/metrics.md", metrics_block),
    "toxbench/settings.py": ("reference/settings.md", settings_block),
    "pytest -m faults": ("reference/exit-codes-and-faults.md", as_markdown),
}


def pattern(source: str) -> re.Pattern[str]:
    """Return a pattern of a part with its markers; the part itself is group 1."""
    name = re.escape(source)
    return re.compile(rf"<!-- written by: {name} -->\n\n(.*?)\n\n<!-- end of {name} -->", re.DOTALL)


def package_page() -> str:
    """Return the README without pictures and with the text of links only.

    A package index shows it, where links to files of the repository lead nowhere.
    """
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^!\[[^]]*\]\([^)]*\)\n\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^]]*)\]\((?!\w+://)[^)]*\)", r"\1", text)
    return f"{text}\nThe guides are in the folder `toxbench/docs` of this package.\n"


def main() -> None:
    """Write every part into its page, and the page of the package index."""
    PACKAGE_PAGE.write_text(package_page(), encoding="utf-8")
    for source, (page, generate) in PARTS.items():
        path = DOCS / page
        start, end = f"<!-- written by: {source} -->", f"<!-- end of {source} -->"
        part = f"{start}\n\n{generate()}\n\n{end}"
        text = path.read_text(encoding="utf-8")
        path.write_text(
            re.sub(
                rf"{re.escape(start)}.*{re.escape(end)}", lambda _, part=part: part, text,
                flags=re.DOTALL,
            ),
            encoding="utf-8",
        )  # fmt: skip


if __name__ == "__main__":
    main()
