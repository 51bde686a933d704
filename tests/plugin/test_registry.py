"""Discovery of plugins in real distributions: modules and dist-info folders on the path."""

import itertools
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from plugin_site import IMPORTS, install_distribution

from toxbench import Backbone, Baseline
from toxbench.errors import PluginError, SettingsError
from toxbench.plugin import sources
from toxbench.plugin.registry import Problem, Registry

Install = Callable[..., None]

_NUMBER = itertools.count()


def backbones_source(*names: str) -> str:
    """Return the source of a module that registers backbones of these names."""
    items = ", ".join(f"Backbone(name={name!r}, checkpoint='a/b')" for name in names)
    return f"@hookimpl\ndef toxbench_backbones():\n    return [{items}]\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution: ``install("name", plugin="source", ...)``."""
    modules: list[str] = []

    def install_plugins(distribution: str, **sources: str) -> None:
        plugins = {
            name: (f"{name}_of_test_{next(_NUMBER)}", IMPORTS + source)
            for name, source in sources.items()
        }
        modules.extend(module for module, _ in plugins.values())
        install_distribution(tmp_path / distribution, distribution, plugins)
        monkeypatch.syspath_prepend(tmp_path / distribution)

    yield install_plugins
    for module in modules:
        sys.modules.pop(module, None)


def problems_of(registry: Registry, distribution: str) -> list[Problem]:
    return [p for p in registry.problems if distribution in p.distribution]


def test_installed_plugin_has_its_distribution(install: Install) -> None:
    install("outside", mine=backbones_source("mine"))
    registry = Registry.discover()
    registered = registry.backbone("mine")
    assert (registered.item.name, registered.plugin) == ("mine", "mine")
    assert registered.distribution == "outside 1.0"
    assert problems_of(registry, "outside") == []


def test_built_in_plugins_are_entry_points() -> None:
    built_in = [e for e in entry_points(group="toxbench") if e.dist and e.dist.name == "toxbench"]
    registry = Registry(built_in)
    assert set(registry.backbones) == {
        "bert", "deberta-v3", "distilbert", "electra", "minilm", "modernbert", "roberta",
        "xlm-roberta",
    }  # fmt: skip
    baselines = {name: entry.item.on_request for name, entry in registry.baselines.items()}
    assert baselines == {"always-negative": False, "tfidf-logreg": False} | dict.fromkeys(
        ("embeddings", "model2vec", "setfit", "zero-shot"), True
    )
    assert {"plain", "github", "markdown", "latex", "html", "csv", "json"} <= set(registry.formats)
    assert registry.problems == []


def test_registry_without_entries_is_empty() -> None:
    registry = Registry([])
    assert (registry.backbones, registry.baselines, registry.formats) == ({}, {}, {})


def test_plugin_may_register_every_kind(install: Install) -> None:
    other_hooks = (
        "@hookimpl\ndef toxbench_baselines():\n    return [Baseline(name='dull', fit=print)]\n"
        "@hookimpl\ndef toxbench_report_formats():\n"
        "    return [ReportFormat(name='titles', render=lambda table: table.title)]\n"
    )
    install("outside", mine=backbones_source("one", "two") + other_hooks)
    registry = Registry.discover()
    assert isinstance(registry.backbone("one").item, Backbone)
    assert isinstance(registry.backbone("two").item, Backbone)
    assert isinstance(registry.baseline("dull").item, Baseline)
    assert registry.report_format("titles").distribution == "outside 1.0"


BROKEN = {
    "import_error": ("import no_such_module_anywhere\n", "ModuleNotFoundError"),
    "syntax_error": ("def (:\n", "SyntaxError"),
    "exit_at_import": ("raise SystemExit('I leave')\n", "SystemExit: I leave"),
    "misspelled_hook": (
        backbones_source("x").replace("toxbench_backbones", "toxbench_backbone"),
        "unknown hook 'toxbench_backbone'",
    ),
    "unknown_argument": (
        backbones_source("x").replace("backbones()", "backbones(table)"),
        "Argument(s) {'table'}",
    ),
    "raising_hook": (
        "@hookimpl\ndef toxbench_backbones():\n    raise RuntimeError('not\\ntoday')\n",
        "RuntimeError: not today",
    ),
    "exiting_hook": (
        "@hookimpl\ndef toxbench_backbones():\n    raise SystemExit\n",
        "SystemExit: no message",
    ),
    "wrong_objects": (
        "@hookimpl\ndef toxbench_backbones():\n    return [{'name': 'x'}]\n",
        "expected Backbone objects, got dict",
    ),
    "wrong_kind": (
        "@hookimpl\ndef toxbench_backbones():\n    return [Baseline(name='x', fit=print)]\n",
        "expected Backbone objects, got Baseline",
    ),
    "nothing_returned": ("@hookimpl\ndef toxbench_backbones():\n    pass\n", "not iterable"),
    "illegal_name": (backbones_source("../x"), "name '../x' must be"),
    "empty_name": (backbones_source(""), "name '' must be"),
    "line_end_in_name": (backbones_source("x\n"), r"name 'x\n' must be"),
    "long_name": (backbones_source("x" * 65), "must be 1 to 64"),
    "number_as_name": ("@hookimpl\ndef toxbench_backbones():\n"
                       "    return [Backbone(name=5, checkpoint='a/b')]\n", "TypeError"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "words"), BROKEN.values(), ids=BROKEN)
def test_broken_plugin_is_one_problem(install: Install, source: str, words: str) -> None:
    install("broken-things", rotten=source)
    install("good-things", sound=backbones_source("sound"))
    registry = Registry.discover()
    (problem,) = problems_of(registry, "broken-things")
    assert str(problem).startswith("plugin 'rotten' of broken-things 1.0: ")
    assert words in problem.message
    assert "\n" not in str(problem)
    assert registry.backbone("bert").item.name == "bert"
    assert registry.backbone("sound").item.name == "sound"
    assert problems_of(registry, "good-things") == []
    assert "x" not in registry.backbones


@pytest.mark.parametrize("name", ["x" * 64, "A", "9-lives_v1.2"])
def test_legal_name_is_accepted(install: Install, name: str) -> None:
    install("outside", mine=backbones_source(name))
    assert Registry.discover().backbone(name).item.name == name


def test_requesting_a_broken_plugin_raises(install: Install) -> None:
    install("broken-things", rotten="import no_such_module_anywhere\n")
    with pytest.raises(PluginError, match=r"'rotten' of broken-things 1\.0.*no_such_module"):
        Registry.discover().backbone("rotten")


def test_unknown_name_mentions_broken_plugins(install: Install) -> None:
    install("broken-things", aaa="import no_such_module_anywhere\n")
    with pytest.raises(PluginError, match=r"failed to load: .*broken-things 1\.0"):
        Registry.discover().backbone("zzzzzzzz")


def test_duplicate_plugin_name_is_refused(install: Install) -> None:
    install("first-claim", same=backbones_source("same"))
    install("second-claim", same=backbones_source("same"))
    registry = Registry.discover()
    with pytest.raises(PluginError, match=r"first-claim 1\.0") as caught:
        registry.backbone("same")
    assert "second-claim 1.0" in str(caught.value)
    assert len(problems_of(registry, "first-claim")) == 1
    assert registry.backbone("bert").item.name == "bert"


def test_second_plugin_cannot_replace_bert(install: Install) -> None:
    install("impostor", bert=backbones_source("bert"))
    registry = Registry.discover()
    with pytest.raises(PluginError, match=r"impostor 1\.0") as caught:
        registry.backbone("bert")
    assert "toxbench " in str(caught.value)
    assert registry.backbone("distilbert").item.name == "distilbert"


def test_duplicate_backbone_name_is_refused(install: Install) -> None:
    install("impostor", second=backbones_source("bert", "mine"))
    registry = Registry.discover()
    with pytest.raises(PluginError, match=r"impostor 1\.0") as caught:
        registry.backbone("bert")
    assert "plugin 'bert' of toxbench " in str(caught.value)
    assert "bert" not in registry.backbones
    assert registry.backbone("distilbert").item.name == "distilbert"
    assert registry.backbone("mine").item.name == "mine"


def test_repeated_entry_point_counts_once(install: Install) -> None:
    install("outside", mine=backbones_source("mine"))
    registry = Registry([*entry_points(group="toxbench"), *entry_points(group="toxbench")])
    assert registry.backbone("mine").distribution == "outside 1.0"
    assert registry.backbone("bert").item.name == "bert"


@pytest.mark.parametrize(
    ("find", "name", "suggestion"),
    [
        (Registry.backbone, "brt", "bert"),
        (Registry.backbone, "distil-bert", "distilbert"),
        (Registry.baseline, "tfidf-logrg", "tfidf-logreg"),
        (Registry.report_format, "jsn", "json"),
    ],
)
def test_unknown_name_is_refused_with_a_suggestion(
    find: Callable[[Registry, str], object], name: str, suggestion: str
) -> None:
    with pytest.raises(SettingsError, match=f"did you mean '{suggestion}'"):
        find(Registry.discover(), name)


def test_failing_event_hook_does_not_stop_others(install: Install) -> None:
    calls = "@hookimpl\ndef toxbench_epoch_finished(cell):\n    cell('{name}')\n"
    raises = "@hookimpl\ndef toxbench_epoch_finished(cell, epoch):\n    raise {error}\n"
    install("a-calls", first=calls.format(name="first"), last=calls.format(name="last"))
    install("b-raises", loud=raises.format(error="ValueError(epoch)"))
    install("c-quits", gone=raises.format(error="SystemExit('bye')"))
    registry = Registry.discover()
    called: list[str] = []
    problems = registry.notify("toxbench_epoch_finished", cell=called.append, epoch="third")
    assert sorted(called) == ["first", "last"]
    assert sorted(map(str, problems)) == [
        "plugin 'gone' of c-quits 1.0: SystemExit: bye",
        "plugin 'loud' of b-raises 1.0: ValueError: third",
    ]


def test_event_hooks_get_copies(install: Install) -> None:
    install(
        "a-clears", first="@hookimpl\ndef toxbench_cell_finished(result):\n    result.clear()\n"
    )
    result = ["original"]
    assert Registry.discover().notify("toxbench_cell_finished", result=result) == []
    assert result == ["original"]


def test_generator_that_raises_late_is_one_problem(install: Install) -> None:
    source = (
        "@hookimpl\ndef toxbench_backbones():\n    yield from ()\n    raise RuntimeError('late')\n"
    )
    install("late-riser", late=source)
    registry = Registry.discover()
    assert [p.message for p in problems_of(registry, "late-riser")] == ["RuntimeError: late"]
    assert registry.backbone("bert")


def test_baseline_conflict_does_not_block_the_backbone(
    install: Install,
) -> None:
    source = "@hookimpl\ndef toxbench_baselines():\n    return [Baseline(name='bert', fit=print)]\n"
    install("first-one", one=source)
    install("second-one", two=source)
    registry = Registry.discover()
    assert registry.backbone("bert")
    with pytest.raises(PluginError, match=r"first-one.*second-one|second-one.*first-one"):
        registry.baseline("bert")


def test_hook_wrapper_is_refused(install: Install) -> None:
    source = "@hookimpl(wrapper=True)\ndef toxbench_cell_finished(result):\n    return (yield)\n"
    install("wrapping-paper", paper=source)
    (problem,) = Registry.discover().notify("toxbench_cell_finished", result=None)
    assert "wrapper" in problem.message


def test_unreadable_entry_points_are_reported(install: Install, tmp_path: Path) -> None:
    install("scrambled")
    file = next((tmp_path / "scrambled").glob("*.dist-info")) / "entry_points.txt"
    file.write_text("[toxbench]\nnonsense\n", encoding="utf-8")
    registry = Registry.discover()
    assert registry.backbone("bert")
    assert [p.distribution for p in registry.problems] == ["scrambled"]


ENDINGS = {
    "exits": ("import os; os._exit(0)\n", "did not return: its process ended with exit code 0"),
    "crashes": ("import ctypes; ctypes.string_at(0)\n", "was ended by SIGSEGV"),
    "hangs": ("import time; time.sleep(1e6)\n", "its import took more than 2 s"),
    "exits_in_hook": (
        "@hookimpl\ndef toxbench_backbones():\n    import os; os._exit(0)\n", "exit code 0",
    ),
}  # fmt: skip


@pytest.mark.faults(48)
@pytest.mark.parametrize(("source", "words"), ENDINGS.values(), ids=ENDINGS)
def test_import_cannot_end_the_process(
    install: Install, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    monkeypatch.setattr(sources, "SECONDS", 2.0)
    install("deadly-things", deadly=source)
    registry = Registry.discover()
    (problem,) = problems_of(registry, "deadly-things")
    assert words in problem.message
    assert registry.backbone("bert").item.name == "bert"
    with pytest.raises(PluginError, match=r"'deadly' of deadly-things 1\.0: its import"):
        registry.backbone("deadly")


@pytest.mark.faults(48)
def test_output_of_plugins_goes_to_stderr(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    hooks = (
        "@hookimpl\ndef toxbench_backbones():\n    print('hook')\n    return []\n"
        "@hookimpl\ndef toxbench_cell_finished():\n    print('event')\n"
    )
    install("loud-things", loud="print('import')\n" + hooks)
    assert Registry.discover().notify("toxbench_cell_finished", result=None) == []
    output = capsys.readouterr()
    assert (output.out, output.err.split()) == ("", ["import", "hook", "event"])


@pytest.mark.faults(49)
def test_name_that_begins_with_toxbench_is_foreign(install: Install) -> None:
    install("toxbench extra", mine=backbones_source("mine"))
    assert "mine" not in Registry.discover([]).backbones
    assert Registry.discover().backbones["mine"].third_party_plugin == "mine"


@pytest.mark.faults(49)
def test_metadata_that_is_not_utf8_is_one_problem(install: Install, tmp_path: Path) -> None:
    install("garbled", mine=backbones_source("mine"))
    file = next((tmp_path / "garbled").glob("*.dist-info")) / "METADATA"
    file.write_bytes(b"Metadata-Version: 2.1\nName: garbled\nVersion: 1.0\nAuthor: \xff\n")
    registry = Registry.discover()
    (problem,) = registry.problems
    assert "unreadable metadata" in problem.message
    assert registry.backbone("bert")


@pytest.mark.faults(43)
def test_third_party_plugins_load_only_if_named(install: Install) -> None:
    install("outside", mine=backbones_source("mine"))
    install("elsewhere", other_plugin=backbones_source("other_plugin"))
    registry = Registry.discover(["mine"])
    assert {"mine", "bert"} <= set(registry.backbones)
    assert "other_plugin" not in registry.backbones
    assert registry.backbones["mine"].third_party_plugin == "mine"
    assert registry.backbones["bert"].third_party_plugin is None
    assert registry.has_third_party_plugins
    assert not Registry.discover([]).has_third_party_plugins
    assert "mine" not in Registry.discover([]).backbones
    with pytest.raises(SettingsError, match=r"'mines'.*did you mean 'mine'"):
        Registry.discover(["mines"])


@pytest.mark.faults(55)
@pytest.mark.parametrize("layout", ["module", "package", "editable"])
def test_changed_files_are_another_build(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    install("outside", mine=backbones_source("mine"))
    (module,) = (tmp_path / "outside").glob("*.py")
    changed = module
    if layout == "package":
        changed = module.with_suffix("") / "deep" / "settings.json"
        changed.parent.mkdir(parents=True)
        module.rename(module.with_suffix("") / "__init__.py")
    if layout == "editable":
        (info,) = (tmp_path / "outside").glob("*.dist-info")
        (info / "direct_url.json").write_text('{"dir_info": {"editable": true}, "url": "file:///"}')
        changed = module.with_name("beside.py")
    builds = []
    for text in ("", "", "# changed"):
        with changed.open("a") as file:
            file.write(text)
        builds.append(Registry.discover().backbone("mine").build)
    assert builds[0] == builds[1] != builds[2]
    assert builds[0].startswith("outside 1.0 (")
    assert Registry.discover().backbone("bert").build.startswith("toxbench ")
