"""The architecture as the folder names tell it: who may import what, read from the sources."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import pytest

import toxbench
from toxbench.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "toxbench" / "__init__.py").is_file() or not (ROOT / "plugins").is_dir(),
    reason="the sources are not beside the tests",
)

BASE = {"errors", "settings", "config", "records", "util"}
LIBRARY = {
    "base", "data", "plugin", "evaluation", "training", "store", "ranking", "report",
    "executors", "benchmark",
}  # fmt: skip
# Stage -> the stages that it may import, besides itself. "toxbench" is the package's own names.
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
    "cli": {*LIBRARY, "tuning", "speed", "inference", "toxbench"},
    "__main__": {"cli"},
    "toxbench": {"base", "plugin", "benchmark", "tuning", "inference"},
}
HEAVY = {
    "torch", "transformers", "pandas", "sklearn", "optuna", "matplotlib", "mlflow", "tensorboard",
    "pytest", "ray",
}  # fmt: skip
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
    """Yield all statements but those for type checkers; without ``lazily``, of no function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in FOR_TYPES:
            for other in child.orelse:
                yield other
                yield from at_run_time(other, lazily)
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
    """Name the stage of a path that starts with ``toxbench``."""
    second = (*dotted.split("."), "toxbench")[1]
    if second in BASE:
        return "base"
    return second if second in ALLOWED or (ROOT / "toxbench" / second).is_dir() else "toxbench"


def stage_of(path: Path) -> str:
    first = path.relative_to(ROOT / "toxbench").parts[0].removesuffix(".py")
    if first == "__init__":
        return "toxbench"
    return "base" if first in BASE else first


def forbidden(own: str, module: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """Yield the imports that a module of a stage must not have."""
    for node, name in imported(at_run_time(module)):
        if name.startswith("."):
            yield node, name
        if name.split(".")[0] == "toxbench" and stage(name) not in {own, *ALLOWED[own]}:
            yield node, name
        if name.split(".")[0] == "toxbench_plugins":
            yield node, name


def test_every_stage_has_a_rule() -> None:
    assert {stage_of(path) for path in sources("toxbench")} <= set(ALLOWED)


def test_every_arrow_points_one_way() -> None:
    found = [
        f"{where(path, node)} imports {name}"
        for path in sources("toxbench")
        for node, name in forbidden(stage_of(path), tree(path))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("own", "code"),
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
def test_the_walk_sees_an_arrow_that_points_back(own: str, code: str) -> None:
    assert len(list(forbidden(own, ast.parse(code)))) == 1


def test_the_walk_passes_over_imports_for_types_and_from_others() -> None:
    code = (
        "if TYPE_CHECKING:\n    from toxbench.cli import x\nimport os\nfrom toxbench.util import y"
    )
    assert list(forbidden("evaluation", ast.parse(code))) == []


def test_plugins_import_public_names_only() -> None:
    public = {f"toxbench.{name}" for name in toxbench.__all__}
    found = [
        f"{where(path, node)} imports {name}"
        for path in sources("plugins")
        for node, name in imported(n for n in ast.walk(tree(path)) if isinstance(n, ast.stmt))
        if name.startswith((".", "toxbench")) and name not in public
    ]
    assert found == []


def test_every_public_name_is_there() -> None:
    assert sorted(toxbench.__all__) == toxbench.__all__
    assert [name for name in toxbench.__all__ if not hasattr(toxbench, name)] == []


def test_no_module_hides_a_public_name() -> None:
    """Importing the module ``toxbench.run`` would replace the function ``toxbench.run``."""
    modules = {path.stem for path in (ROOT / "toxbench").iterdir()}
    assert modules & set(toxbench.__all__) == set()


def light_sources() -> list[Path]:
    single = ["settings.py", "training/weights.py", "training/hub.py", "training/__init__.py"]
    folders = sources("toxbench/cli", "toxbench/plugin", "plugins")
    paths = [*folders, *(ROOT / "toxbench" / name for name in single)]
    return [path for path in paths if path.name != "modules.py"]


def test_nothing_heavy_is_imported_before_a_command_needs_it() -> None:
    found = [
        f"{where(path, node)} imports {name}"
        for path in light_sources()
        for node, name in imported(at_run_time(tree(path), lazily=False))
        if name.split(".")[0] in HEAVY
    ]
    assert found == []


def test_help_and_discovery_load_nothing_heavy() -> None:
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
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_the_top_level_holds_these_names_and_nothing_else() -> None:
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
    """Yield what could run code out of a data file."""
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
def test_no_file_is_ever_unpickled() -> None:
    found = [where(p, n) for p in sources("toxbench", "plugins") for n in unsafe(tree(p))]
    assert found == []


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
def test_the_walk_sees_what_would_be_unpickled(code: str) -> None:
    assert len(list(unsafe(ast.parse(code)))) == 1


Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public(node: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    for child in node.body:
        if isinstance(child, Definition) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public(child)


def test_everything_public_has_a_docstring() -> None:
    found = [
        f"{where(path, node)} {node.name}"
        for path in sources("toxbench", "plugins")
        for node in public(tree(path))
        if not ast.get_docstring(node)
    ]
    assert found == []


def test_every_module_with_code_says_what_it_is_for() -> None:
    modules = [(path, tree(path)) for path in sources("toxbench", "plugins")]
    assert len(modules) > 40
    assert [where(path) for path, m in modules if m.body and not ast.get_docstring(m)] == []


def test_the_losses_are_the_ones_that_settings_allow() -> None:
    from toxbench.training.losses import LOSSES

    assert tuple(LOSSES) == get_args(TrainSettings.model_fields["loss"].annotation)
