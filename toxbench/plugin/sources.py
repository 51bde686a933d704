"""The distribution and the files of a plugin, and its first import, in a process of its own.

An import may crash, exit or hang, and with it the process. Therefore the main process imports only
plugins that a child process has imported before.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path

from toxbench.util.content import content_name, sha256_file
from toxbench.util.processes import describe_exit, end_child, exit_with_parent, start_child

SECONDS = 60.0  # for all plugins, which are imported at the same time


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


def unusable_plugins(entries: Iterable[EntryPoint]) -> list[tuple[EntryPoint, str]]:
    """Return the plugins that end their process or exceed the time limit, each with the reason.

    Plugins that raise an exception are not among them: an exception does no harm.
    """
    deadline = time.monotonic() + SECONDS
    with ExitStack() as running:
        children = []
        for entry in entries:
            child = start_child("toxbench.plugin.sources", os.environ, subprocess.DEVNULL)
            running.callback(end_child, *child)
            child[1].send((entry.name, entry.value, entry.group))
            children.append((entry, child))
        reasons = [(entry, _reason(*child, deadline)) for entry, child in children]
    return [(entry, reason) for entry, reason in reasons if reason]


def _reason(process: "subprocess.Popen[bytes]", connection: Connection, deadline: float) -> str:
    """Wait for one plugin; return "" if it was imported."""
    try:
        if not connection.poll(max(0.0, deadline - time.monotonic())):
            return f"its import took more than {SECONDS:.0f} s"
        connection.recv()
    except (EOFError, ConnectionResetError):
        return f"its import did not return: {describe_exit(process)}"
    return ""


def main(descriptor: int) -> None:
    """Import a plugin and collect its items, as the main process does; then send None."""
    from toxbench.plugin.registry import Registry

    exit_with_parent()
    with Connection(descriptor) as connection:
        Registry([EntryPoint(*connection.recv())])
        connection.send(None)
