"""Write the API reference as pages: ``python tests/reference.py FOLDER`` (``tox -e docs``).

A public name whose docstring is missing, and whatever pdoc warns of, ends it with an error.
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


def undocumented() -> list[str]:
    """Return the public classes and functions without a docstring of their own."""
    public = ((name, getattr(toxbench, name)) for name in toxbench.__all__)
    own = ((name, item) for name, item in public if _is_own(item))
    return [name for name, item in own if not item.__doc__]


def _is_own(item: object) -> bool:
    return callable(item) and str(getattr(item, "__module__", "")).startswith("toxbench")


def main(folder: Path) -> None:
    """Write the pages."""
    import pdoc

    missing = undocumented()
    if missing:
        sys.exit(f"no docstring: {', '.join(missing)}")
    for module in (toxbench, toxbench.testing):
        for name in module.__all__:  # pdoc sees what is there, not what would be imported
            vars(module)[name] = getattr(module, name)
    warnings.simplefilter("error")
    # Types of torch and numpy are imported for type checkers alone: they are shown as written.
    warnings.filterwarnings("ignore", message="Error parsing type annotation")
    pdoc.render.configure(docformat="google", footer_text=f"toxbench {toxbench.__version__}")
    pdoc.pdoc(*MODULES, output_directory=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
