"""A third party's distribution as pip leaves it: a module and a dist-info folder on the path."""

from pathlib import Path

_IMPORTS = "from toxbench import Backbone, Baseline, ReportFormat, hookimpl\n"


def write_plugin(site: Path, name: str, source: str, version: str = "1.0") -> Path:
    """Install plugin ``name`` of distribution ``dist-name`` into a folder; return its module."""
    info = site / f"dist_{name}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: dist-{name}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    module = f"module_of_{name.replace('-', '_')}"
    entry = f"[toxbench]\n{name} = {module}\n"
    (info / "entry_points.txt").write_text(entry, encoding="utf-8")
    path = site / f"{module}.py"
    path.write_text(_IMPORTS + source, encoding="utf-8")
    return path
