"""Third-party distributions as pip installs them: modules and a dist-info folder on the path."""

from collections.abc import Mapping
from pathlib import Path

IMPORTS = "from toxbench import Backbone, Baseline, ReportFormat, hookimpl\n"


def install_distribution(
    site: Path, distribution: str, modules: Mapping[str, tuple[str, str]], version: str = "1.0"
) -> None:
    """Write a distribution into a folder.

    Args:
        site: folder to be put on the path.
        distribution: name of the distribution.
        modules: name of a plugin -> name and source of its module.
        version: of the distribution.
    """
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    lines = ["[toxbench]"]
    for plugin, (module, source) in modules.items():
        (site / f"{module}.py").write_text(source, encoding="utf-8")
        lines.append(f"{plugin} = {module}")
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


def install_plugin(site: Path, distribution: str, **sources: str) -> None:
    """Install a distribution with plugins: name -> source of the module."""
    prefix = distribution.replace("-", "_")
    modules = {name: (f"{prefix}_{name}", source) for name, source in sources.items()}
    install_distribution(site, distribution, modules)


def write_plugin(site: Path, name: str, source: str, version: str = "1.0") -> Path:
    """Install a plugin as distribution ``dist-NAME``; return its module.

    The source starts with the usual imports.
    """
    module = f"module_of_{name.replace('-', '_')}"
    install_distribution(site, f"dist-{name}", {name: (module, IMPORTS + source)}, version)
    return site / f"{module}.py"
