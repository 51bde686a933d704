"""Write the API reference as HTML pages: ``tox -e docs``.

``python tests/helpers/reference.py FOLDER`` writes them to another folder.

A public name without a docstring or a warning of pdoc is an error.
"""

import sys
import warnings
from pathlib import Path

import toxbench
import toxbench.testing

MODULES = (
    "toxbench", "!toxbench.", "toxbench.testing", "toxbench.settings", "toxbench.records",
    "toxbench.errors", "toxbench.plugin.hookspecs",
)  # fmt: skip


def undocumented_names() -> list[str]:
    """Return the public classes and functions of toxbench without a docstring."""
    items = {name: getattr(toxbench, name) for name in toxbench.__all__}
    return [name for name, item in items.items() if _is_defined_here(item) and not item.__doc__]


def _is_defined_here(item: object) -> bool:
    return callable(item) and str(getattr(item, "__module__", "")).startswith("toxbench")


def main(folder: Path) -> None:
    """Write the pages."""
    import pdoc

    undocumented = undocumented_names()
    if undocumented:
        sys.exit(f"no docstring: {', '.join(undocumented)}")
    for module in (toxbench, toxbench.testing):
        for name in module.__all__:  # import lazy names, which pdoc does not see
            vars(module)[name] = getattr(module, name)
    warnings.simplefilter("error")
    # Types of torch and numpy are imported for type checkers only: pdoc shows them as text.
    warnings.filterwarnings("ignore", message="Error parsing type annotation")
    pdoc.render.configure(docformat="google", footer_text=f"toxbench {toxbench.__version__}")
    pdoc.pdoc(*MODULES, output_directory=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
