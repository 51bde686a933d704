"""The import rules between the folders of the sources, checked in the syntax trees."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import pytest
from support import TIMEOUT

import toxbench
from toxbench.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "toxbench" / "__init__.py").is_file() or not (ROOT / "plugins").is_dir(),
    reason="the sources are not next to the tests",
)

BASE = {"errors", "settings", "config", "records", "util"}
LIBRARY = {
    "base", "data", "plugin", "evaluation", "training", "store", "ranking", "report",
    "executors", "benchmark",
}  # fmt: skip
# Stage -> the other stages that it may import. "toxbench" stands for ``toxbench/__init__.py``.
ALLOWED: dict[str, set[str]] = {
    "base": set(),
    "data": {"base"},
    "evaluation": {"base"},
    "plugin": {"base", "evaluation"},
    "training": {"base", "data", "plugin"},
    "store": {"base", "data"},
    "ranking": {"base", "store", "evaluation"},
    "report": {"base", "plugin", "store", "evaluation", "ranking"},
    "executors": {"base", "plugin", "training"},
    "benchmark": LIBRARY,
    "tuning": LIBRARY,
    "speed": LIBRARY,
    "inference": LIBRARY,
    "testing": {*LIBRARY, "tuning", "toxbench"},
    "api": {*LIBRARY, "tuning", "inference"},
    "cli": {*LIBRARY, "tuning", "speed", "inference", "api", "toxbench"},
    "__main__": {"cli"},
    "toxbench": {"base", "plugin", "inference", "api"},
}
HEAVY = {
    "torch", "transformers", "pandas", "sklearn", "optuna", "matplotlib", "mlflow", "tensorboard",
    "pytest", "ray",
}  # fmt: skip
UNIX_ONLY = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
FOR_TYPES = {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
TOP_LEVEL = {
    "toxbench", "plugins", "tests", "results", "pyproject.toml", "tox.ini", "README.md",
    "LICENSE", "CHANGELOG.md",
}  # fmt: skip


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def where(path: Path, node: ast.stmt | ast.expr | None = None) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno if node else 1}"


def at_run_time(node: ast.AST, lazily: bool = True) -> Iterator[ast.stmt]:
    """Yield the statements that run; without ``lazily``, only those outside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in FOR_TYPES:
            for statement in child.orelse:
                yield statement
                yield from at_run_time(statement, lazily)
            continue
        if isinstance(child, ast.stmt):
            yield child
        if lazily or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from at_run_time(child, lazily)


def imported(nodes: Iterable[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Yield every module or name that is imported, with its full path."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from ((node, f"{start}.{alias.name}") for alias in node.names)


def stage(dotted: str) -> str:
    """Return the stage of a dotted path that starts with ``toxbench``."""
    second = (*dotted.split("."), "toxbench")[1]
    if second in BASE:
        return "base"
    return second if second in ALLOWED or (ROOT / "toxbench" / second).is_dir() else "toxbench"


def stage_of(path: Path) -> str:
    first = path.relative_to(ROOT / "toxbench").parts[0].removesuffix(".py")
    if first == "__init__":
        return "toxbench"
    return "base" if first in BASE else first


def forbidden(importer: str, module: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """Yield the imports that are forbidden in a module of the stage ``importer``."""
    for node, name in imported(at_run_time(module)):
        if name.startswith("."):
            yield node, name
        if name.split(".")[0] == "toxbench" and stage(name) not in {importer, *ALLOWED[importer]}:
            yield node, name
        if name.split(".")[0] == "toxbench_plugins":
            yield node, name


def test_every_stage_has_a_rule() -> None:
    assert {stage_of(path) for path in sources("toxbench")} <= set(ALLOWED)


def test_imports_follow_the_rules() -> None:
    violations = [
        f"{where(path, node)} imports {name}"
        for path in sources("toxbench")
        for node, name in forbidden(stage_of(path), tree(path))
    ]
    assert violations == []


@pytest.mark.parametrize(
    ("importer", "code"),
    [
        ("base", "from toxbench.data.table import Comments"),
        ("data", "import toxbench.store.cells"),
        ("data", "def f():\n    from toxbench import cli"),
        ("plugin", "if x:\n    from toxbench.training import loop"),
        ("training", "from toxbench.evaluation.metrics import evaluate"),
        ("store", "from toxbench import Backbone"),
        ("benchmark", "from toxbench.cli.main import main"),
        ("report", "from .words import millions"),
        ("benchmark", "import toxbench_plugins.bert"),
        ("data", "if TYPE_CHECKING:\n    pass\nelse:\n    import toxbench.store"),
    ],
)
def test_forbidden_imports_are_detected(importer: str, code: str) -> None:
    assert len(list(forbidden(importer, ast.parse(code)))) == 1


def test_type_and_external_imports_are_allowed() -> None:
    code = (
        "if TYPE_CHECKING:\n    from toxbench.cli import x\nimport os\nfrom toxbench.util import y"
    )
    assert list(forbidden("evaluation", ast.parse(code))) == []


def test_plugins_import_public_names_only() -> None:
    public = {f"toxbench.{name}" for name in toxbench.__all__}
    violations = [
        f"{where(path, node)} imports {name}"
        for path in sources("plugins")
        for node, name in imported(n for n in ast.walk(tree(path)) if isinstance(n, ast.stmt))
        if name.startswith((".", "toxbench")) and name not in public
    ]
    assert violations == []


def test_public_names_exist_and_are_sorted() -> None:
    assert sorted(toxbench.__all__) == toxbench.__all__
    assert [name for name in toxbench.__all__ if not hasattr(toxbench, name)] == []


def test_no_module_hides_a_public_name() -> None:
    """Importing the module ``toxbench.run`` would replace the function ``toxbench.run``."""
    modules = {path.stem for path in (ROOT / "toxbench").iterdir()}
    assert modules & set(toxbench.__all__) == set()


def test_no_module_needs_unix_to_be_imported() -> None:
    violations = [
        f"{where(path, node)} imports {name}"
        for path in sources("toxbench", "plugins")
        for node, name in imported(at_run_time(tree(path), lazily=False))
        if name.split(".")[0] in UNIX_ONLY
    ]
    assert violations == []


def light_sources() -> list[Path]:
    single = ["settings.py", "training/weights.py", "training/hub.py", "training/__init__.py"]
    folders = sources("toxbench/cli", "toxbench/plugin", "plugins")
    paths = [*folders, *(ROOT / "toxbench" / name for name in single)]
    return [path for path in paths if path.name != "loading.py"]


def test_light_modules_import_heavy_packages_lazily() -> None:
    violations = [
        f"{where(path, node)} imports {name}"
        for path in light_sources()
        for node, name in imported(at_run_time(tree(path), lazily=False))
        if name.split(".")[0] in HEAVY
    ]
    assert violations == []


def test_help_and_discovery_load_no_heavy_package() -> None:
    code = (
        (
            "import sys, toxbench.cli.main\n"
            "from toxbench.plugin.registry import Registry\n"
            "assert 'bert' in Registry.discover().backbones\n"
            f"print(sorted({sorted(HEAVY)!r} & sys.modules.keys()))"
        )
        .replace("['matplotlib'", "{'matplotlib'")
        .replace("'transformers'] &", "'transformers'} &")
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_top_level_has_only_known_names() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    try:
        command = ["git", "-C", str(ROOT), "ls-files", "-z"]
        files = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git does not answer: {error}")
    top = {name.split("/")[0] for name in files.split("\0") if name}
    assert "toxbench" in top
    assert {name for name in top - TOP_LEVEL if not name.startswith(".")} == set()


UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"torch.load", "torch.save", "pd.read_pickle", "pandas.read_pickle"}


def unsafe(module: ast.Module) -> Iterator[ast.stmt | ast.expr]:
    """Yield the statements and expressions that could run code from a data file."""
    statements = (node for node in ast.walk(module) if isinstance(node, ast.stmt))
    for statement, name in imported(statements):
        if name.split(".")[0] in UNSAFE_MODULES or name in UNSAFE_CALLS:
            yield statement
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in UNSAFE_CALLS:
            yield node
        if isinstance(node, ast.keyword) and node.arg in {"allow_pickle", "trust_remote_code"}:
            yield from [] if ast.unparse(node.value) == "False" else [node.value]


@pytest.mark.faults(41)
def test_no_file_is_unpickled() -> None:
    unsafe_lines = [where(p, n) for p in sources("toxbench", "plugins") for n in unsafe(tree(p))]
    assert unsafe_lines == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "def f():\n    return torch.load(path)",
        "from torch import load",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=anything)",
    ],
)
def test_unpickling_is_detected(code: str) -> None:
    assert len(list(unsafe(ast.parse(code)))) == 1


Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public(node: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    for child in node.body:
        if isinstance(child, Definition) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public(child)


def test_everything_public_has_a_docstring() -> None:
    undocumented = [
        f"{where(path, node)} {node.name}"
        for path in sources("toxbench", "plugins")
        for node in public(tree(path))
        if not ast.get_docstring(node)
    ]
    assert undocumented == []


def test_every_module_has_a_docstring() -> None:
    modules = [(path, tree(path)) for path in sources("toxbench", "plugins")]
    assert len(modules) > 40
    assert [where(path) for path, m in modules if m.body and not ast.get_docstring(m)] == []


def test_losses_match_the_settings() -> None:
    from toxbench.training.losses import LOSSES

    assert tuple(LOSSES) == get_args(TrainSettings.model_fields["loss"].annotation)
