"""The distribution of a plugin: its name and version, and the content of the plugin's files."""

import json
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from toxbench.util.content import content_name
from toxbench.util.hashing import sha256_file


def describe_distribution(entry: EntryPoint) -> str:
    """Return name and version of an entry point's distribution."""
    if entry.dist is None:
        return "an unknown distribution"
    metadata = entry.dist.metadata
    return f"{metadata['Name']} {metadata['Version']}"


def describe_content(entry: EntryPoint) -> str:
    """Return name and version of a distribution, and a hash of the plugin's files.

    The files of an editable installation change without a new version. They are those of the
    plugin's package; for a single module that module, and in an editable installation also the
    modules next to it.
    """
    spec = find_spec(entry.module.partition(".")[0])
    if spec is not None and spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations)))
        content = _hash_files(folder, folder.rglob("*"))
    elif spec is not None and spec.origin:
        module = Path(spec.origin)
        files = module.parent.glob("*.py") if _is_editable(entry) else [module]
        content = _hash_files(module.parent, files)
    else:
        content = "no files"
    return f"{describe_distribution(entry)} ({content})"


def _is_editable(entry: EntryPoint) -> bool:
    text = entry.dist.read_text("direct_url.json") if entry.dist else None
    return text is not None and bool(json.loads(text).get("dir_info", {}).get("editable"))


def _hash_files(folder: Path, files: Iterable[Path]) -> str:
    """Return 12 hex digits for the names and the content of files, without compiled modules."""
    sources = (p for p in files if p.is_file() and p.suffix != ".pyc")
    hashes = {path.relative_to(folder).as_posix(): sha256_file(path) for path in sources}
    return content_name(hashes)[:12]
