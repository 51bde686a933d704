"""Discovery, with real distributions: modules and dist-info folders on the path."""

import itertools
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from toxbench import Backbone, Baseline
from toxbench.errors import PluginError, SettingsError
from toxbench.plugin.registry import Problem, Registry

Install = Callable[..., None]

_NUMBER = itertools.count()
_IMPORTS = "from toxbench import Backbone, Baseline, ReportFormat, hookimpl\n"


def offers(*names: str) -> str:
    """Write a module that brings backbones of these names."""
    items = ", ".join(f"Backbone(name={name!r}, checkpoint='a/b')" for name in names)
    return f"@hookimpl\ndef toxbench_backbones():\n    return [{items}]\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution: ``install("name", plugin="source", ...)``."""
    modules: list[str] = []

    def put(distribution: str, **plugins: str) -> None:
        site = tmp_path / distribution
        info = site / f"{distribution}-1.0.dist-info"
        info.mkdir(parents=True)
        lines = ["[toxbench]"]
        for plugin, source in plugins.items():
            module = f"{plugin}_of_test_{next(_NUMBER)}"
            modules.append(module)
            (site / f"{module}.py").write_text(_IMPORTS + source, encoding="utf-8")
            lines.append(f"{plugin} = {module}")
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
        monkeypatch.syspath_prepend(site)

    yield put
    for module in modules:
        sys.modules.pop(module, None)


def problems_of(registry: Registry, distribution: str) -> list[Problem]:
    return [p for p in registry.problems if distribution in p.distribution]


def test_an_installed_plugin_is_found_with_its_distribution(install: Install) -> None:
    install("outside", mine=offers("mine"))
    registry = Registry.discover()
    found = registry.backbone("mine")
    assert (found.item.name, found.plugin) == ("mine", "mine")
    assert found.distribution == "outside 1.0"
    assert problems_of(registry, "outside") == []


def test_the_built_in_plugins_come_through_the_same_group() -> None:
    built_in = [e for e in entry_points(group="toxbench") if e.dist and e.dist.name == "toxbench"]
    registry = Registry(built_in)
    assert set(registry.backbones) == {
        "bert", "deberta-v3", "distilbert", "electra", "minilm", "modernbert", "roberta",
        "xlm-roberta",
    }  # fmt: skip
    assert set(registry.baselines) == {"always-negative", "tfidf-logreg"}
    assert {"plain", "github", "markdown", "latex", "html", "csv", "json"} <= set(registry.formats)
    assert registry.problems == []


def test_there_is_no_other_door() -> None:
    registry = Registry([])
    assert (registry.backbones, registry.baselines, registry.formats) == ({}, {}, {})


def test_one_plugin_may_bring_every_kind(install: Install) -> None:
    rest = (
        "@hookimpl\ndef toxbench_baselines():\n    return [Baseline(name='dull', fit=print)]\n"
        "@hookimpl\ndef toxbench_report_formats():\n"
        "    return [ReportFormat(name='titles', render=lambda table: table.title)]\n"
    )
    install("outside", mine=offers("one", "two") + rest)
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
        offers("x").replace("toxbench_backbones", "toxbench_backbone"),
        "unknown hook 'toxbench_backbone'",
    ),
    "unknown_argument": (
        offers("x").replace("backbones()", "backbones(table)"),
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
    "illegal_name": (offers("../x"), "name '../x' must be"),
    "empty_name": (offers(""), "name '' must be"),
    "line_end_in_name": (offers("x\n"), r"name 'x\n' must be"),
    "long_name": (offers("x" * 65), "must be 1 to 64"),
    "number_as_name": ("@hookimpl\ndef toxbench_backbones():\n"
                       "    return [Backbone(name=5, checkpoint='a/b')]\n", "TypeError"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_one_problem_and_harms_nobody(
    install: Install, source: str, words: str
) -> None:
    install("broken-things", rotten=source)
    install("good-things", sound=offers("sound"))
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
def test_these_names_are_legal(install: Install, name: str) -> None:
    install("outside", mine=offers(name))
    assert Registry.discover().backbone(name).item.name == name


def test_asking_for_a_broken_plugin_by_its_name_is_a_plugin_error(install: Install) -> None:
    install("broken-things", rotten="import no_such_module_anywhere\n")
    with pytest.raises(PluginError, match=r"'rotten' of broken-things 1\.0.*no_such_module"):
        Registry.discover().backbone("rotten")


def test_an_unknown_name_may_belong_to_a_broken_plugin(install: Install) -> None:
    install("broken-things", aaa="import no_such_module_anywhere\n")
    with pytest.raises(PluginError, match=r"failed to load: .*broken-things 1\.0"):
        Registry.discover().backbone("zzzzzzzz")


def test_two_distributions_with_one_plugin_name_are_both_named(install: Install) -> None:
    install("first-claim", same=offers("same"))
    install("second-claim", same=offers("same"))
    registry = Registry.discover()
    with pytest.raises(PluginError, match=r"first-claim 1\.0") as caught:
        registry.backbone("same")
    assert "second-claim 1.0" in str(caught.value)
    assert len(problems_of(registry, "first-claim")) == 1
    assert registry.backbone("bert").item.name == "bert"


def test_a_second_plugin_called_bert_does_not_replace_the_first(install: Install) -> None:
    install("impostor", bert=offers("bert"))
    registry = Registry.discover()
    with pytest.raises(PluginError, match=r"impostor 1\.0") as caught:
        registry.backbone("bert")
    assert "toxbench " in str(caught.value)
    assert registry.backbone("distilbert").item.name == "distilbert"


def test_two_plugins_that_offer_bert_are_both_named(install: Install) -> None:
    install("impostor", other=offers("bert", "mine"))
    registry = Registry.discover()
    with pytest.raises(PluginError, match=r"impostor 1\.0") as caught:
        registry.backbone("bert")
    assert "plugin 'bert' of toxbench " in str(caught.value)
    assert "bert" not in registry.backbones
    assert registry.backbone("distilbert").item.name == "distilbert"
    assert registry.backbone("mine").item.name == "mine"


def test_an_entry_point_seen_twice_on_the_path_counts_once(install: Install) -> None:
    install("outside", mine=offers("mine"))
    registry = Registry([*entry_points(group="toxbench"), *entry_points(group="toxbench")])
    assert registry.backbone("mine").distribution == "outside 1.0"
    assert registry.backbone("bert").item.name == "bert"


@pytest.mark.parametrize(
    ("ask", "name", "meant"),
    [
        (Registry.backbone, "brt", "bert"),
        (Registry.backbone, "distil-bert", "distilbert"),
        (Registry.baseline, "tfidf-logrg", "tfidf-logreg"),
        (Registry.report_format, "jsn", "json"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(
    ask: Callable[[Registry, str], object], name: str, meant: str
) -> None:
    with pytest.raises(SettingsError, match=f"did you mean '{meant}'"):
        ask(Registry.discover(), name)


def test_an_event_hook_that_raises_is_returned_and_others_still_hear(install: Install) -> None:
    hears = "@hookimpl\ndef toxbench_epoch_finished(cell):\n    cell('{name}')\n"
    raises = "@hookimpl\ndef toxbench_epoch_finished(cell, epoch):\n    raise {error}\n"
    install("a-ears", first=hears.format(name="first"), last=hears.format(name="last"))
    install("b-deaf", loud=raises.format(error="ValueError(epoch)"))
    install("c-quits", gone=raises.format(error="SystemExit('bye')"))
    registry = Registry.discover()
    heard: list[str] = []
    problems = registry.notify("toxbench_epoch_finished", cell=heard.append, epoch="third")
    assert sorted(heard) == ["first", "last"]
    assert sorted(map(str, problems)) == [
        "plugin 'gone' of c-quits 1.0: SystemExit: bye",
        "plugin 'loud' of b-deaf 1.0: ValueError: third",
    ]


def test_what_a_hook_changes_is_changed_for_nobody_else(install: Install) -> None:
    install("a-ears", first="@hookimpl\ndef toxbench_cell_finished(result):\n    result.clear()\n")
    result = ["told"]
    assert Registry.discover().notify("toxbench_cell_finished", result=result) == []
    assert result == ["told"]


def test_a_generator_that_raises_late_harms_nobody_else(install: Install) -> None:
    source = (
        "@hookimpl\ndef toxbench_backbones():\n    yield from ()\n    raise RuntimeError('late')\n"
    )
    install("late-riser", late=source)
    registry = Registry.discover()
    assert [p.message for p in problems_of(registry, "late-riser")] == ["RuntimeError: late"]
    assert registry.backbone("bert")


def test_a_baseline_of_two_plugins_does_not_block_the_backbone_of_that_name(
    install: Install,
) -> None:
    source = "@hookimpl\ndef toxbench_baselines():\n    return [Baseline(name='bert', fit=print)]\n"
    install("first-one", one=source)
    install("second-one", two=source)
    registry = Registry.discover()
    assert registry.backbone("bert")
    with pytest.raises(PluginError, match=r"first-one.*second-one|second-one.*first-one"):
        registry.baseline("bert")


def test_a_hook_wrapper_is_refused_by_name(install: Install) -> None:
    source = "@hookimpl(wrapper=True)\ndef toxbench_cell_finished(result):\n    return (yield)\n"
    install("wrapping-paper", paper=source)
    (problem,) = Registry.discover().notify("toxbench_cell_finished", result=None)
    assert "wrapper" in problem.message


def test_a_distribution_with_unreadable_entry_points_is_named(
    install: Install, tmp_path: Path
) -> None:
    install("scrambled")
    file = next((tmp_path / "scrambled").glob("*.dist-info")) / "entry_points.txt"
    file.write_text("[toxbench]\nnonsense\n", encoding="utf-8")
    registry = Registry.discover()
    assert registry.backbone("bert")
    assert [p.distribution for p in registry.problems] == ["scrambled"]


@pytest.mark.faults(43)
def test_plugins_of_others_load_only_if_named(install: Install) -> None:
    install("outside", mine=offers("mine"))
    install("elsewhere", theirs=offers("theirs"))
    registry = Registry.discover(["mine"])
    assert {"mine", "bert"} <= set(registry.backbones)
    assert "theirs" not in registry.backbones
    assert registry.backbones["mine"].third_party_plugin == "mine"
    assert registry.backbones["bert"].third_party_plugin is None
    assert registry.has_third_party_plugins
    assert not Registry.discover([]).has_third_party_plugins
    assert "mine" not in Registry.discover([]).backbones
    with pytest.raises(SettingsError, match=r"'mines'.*did you mean 'mine'"):
        Registry.discover(["mines"])
