"""``toxbench new-backbone``: a plugin distribution to start from. Does not import torch."""

import re
import shutil
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

import cloup

from toxbench import __version__
from toxbench.cli.console import echo
from toxbench.cli.options import OUTPUT, FilePath, debug_option, plugins_option
from toxbench.errors import SettingsError
from toxbench.plugin.registry import Registry, is_valid_name
from toxbench.settings import validate_path
from toxbench.util.text import escape_line

# Template -> file of the distribution.
_FILES = {
    "pyproject.toml.in": "pyproject.toml",
    "module.py.in": "$module.py",
    "test_module.py.in": "tests/test_$module.py",
    "tox.ini.in": "tox.ini",
    "README.md.in": "README.md",
    "gitignore.in": ".gitignore",
}


@cloup.command("new-backbone", short_help="Write a plugin package with a new backbone.")
@cloup.argument("name")
@OUTPUT.option(
    "--into", type=FilePath(file_okay=False), default=Path(),
    help="Parent of the new folder. [the current folder]",
)  # fmt: skip
@plugins_option
@debug_option
def new_backbone(name: str, into: Path, plugins: tuple[str, ...] | None) -> None:
    """Write an installable plugin with a backbone NAME, and tests of its contract.

    The folder toxbench-NAME holds the module to edit, its tests, pyproject.toml, tox.ini and a
    README. Its tests pass as they are: pip install tox && tox
    """
    words = _words(name)
    _refuse_taken(name, words["module"], Registry.discover(plugins))
    folder = _free_folder(into, words["distribution"])
    _write(folder, words)
    shown = escape_line(str(folder))
    echo(f"wrote {shown}: edit {words['module']}.py, then")
    echo(f"  cd {shown} && pip install -e . && toxbench backbones")
    echo("  pip install tox && tox")


def _words(name: str) -> dict[str, str]:
    """Return the values of the templates; raise `SettingsError` for an invalid name."""
    if not is_valid_name(name):
        raise SettingsError(
            f"{escape_line(name)[:80]!r} is not a backbone name: use 1 to 64 letters, "
            "digits, '-', '_' or '.', starting with a letter or digit"
        )
    distribution = f"toxbench-{re.sub(r'[-_.]+', '-', name).strip('-').lower()}"
    return {
        "name": name,
        "distribution": distribution,
        "module": distribution.replace("-", "_"),
        "toxbench": __version__,
    }


def _refuse_taken(name: str, module: str, registry: Registry) -> None:
    """Raise `SettingsError` if a backbone, plugin or module has the name, ignoring case."""
    owners = {
        plugin.lower(): f"plugin {plugin!r} of {distribution}"
        for plugin, distribution in registry.imported_plugins.items()
    }
    owners |= {
        backbone.lower(): f"backbone {backbone!r} of {registered.distribution}"
        for backbone, registered in registry.backbones.items()
    }
    if find_spec(module) is not None:
        owners.setdefault(name.lower(), f"the module {module} is installed")
    if name.lower() in owners:
        raise SettingsError(
            f"{name!r} is taken: {escape_line(owners[name.lower()])}; choose another name, such as "
            f"{f'my-{name}'[:64]!r}"
        )


def _free_folder(into: Path, distribution: str) -> Path:
    """Return the folder to make; raise `SettingsError` if it exists or the path is invalid."""
    try:
        folder = validate_path(into) / distribution
    except ValueError as error:
        raise SettingsError(f"--into: {error}") from error
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise SettingsError(f"{folder} is there already and is no folder; remove it, or use --into")
    if folder.is_dir() and any(folder.iterdir()):
        raise SettingsError(
            f"{folder} is there already and not empty: nothing is overwritten; remove it, choose "
            "another name, or put the new one elsewhere with --into FOLDER"
        )
    return folder


def _write(folder: Path, words: dict[str, str]) -> None:
    """Write all files; if one cannot be written, remove the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for template, target in _FILES.items():
            text = (files("toxbench.cli") / "scaffold" / template).read_text(encoding="utf-8")
            path = folder / Template(target).substitute(words)
            path.parent.mkdir(exist_ok=True)
            path.write_text(Template(text).substitute(words), encoding="utf-8")
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
