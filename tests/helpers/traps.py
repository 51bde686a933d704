"""Modules in a folder whose import is noticed: no process may import what lies beside a table."""

from pathlib import Path

TRAPS = (
    "json", "signal", "importlib", "random", "logging", "typing", "dataclasses", "socket",
    "subprocess", "threading", "tempfile", "numpy", "pandas", "torch", "transformers", "sklearn",
    "safetensors", "pydantic", "pluggy", "filelock", "optuna", "sitecustomize", "cupy", "toxbench",
)  # fmt: skip


def set_traps(folder: Path) -> None:
    """Write modules and a package that note their import in a file and exit."""
    code = "import os, pathlib\npathlib.Path({0!r}).touch()\nos._exit(3)\n"
    (folder / "toxbench").mkdir()
    for name in TRAPS:
        module = "toxbench/__init__" if name == "toxbench" else name
        text = code.format(str(folder / f"{name}.sprung"))
        (folder / f"{module}.py").write_text(text, encoding="utf-8")


def sprung(folder: Path) -> list[str]:
    """Return the names of the modules that were imported."""
    return sorted(path.stem for path in folder.glob("*.sprung"))
