"""Discovery of plugins: entry points of the group ``toxbench``, each loaded separately.

pluggy's own loader is not used: with it, one broken plugin stops all others, and a second plugin
of a name silently replaces the first.
"""

import copy
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from importlib.metadata import (
    Distribution,
    EntryPoint,
    EntryPoints,
    distribution,
    distributions,
    version,
)
from itertools import chain
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import pluggy

from toxbench.errors import PluginError, SettingsError, did_you_mean
from toxbench.plugin import generic, hookspecs
from toxbench.plugin.baseline import Baseline
from toxbench.plugin.contracts import Backbone, ReportFormat, Tracker
from toxbench.plugin.sources import describe_content, describe_distribution
from toxbench.settings import is_folder
from toxbench.util.text import safe_quote

GROUP = "toxbench"
_BUILT_IN = "toxbench"  # the distribution whose plugins always load
_KINDS = {
    "Backbone": "backbone",
    "Baseline": "baseline",
    "ReportFormat": "format",
    "Tracker": "tracker",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Item = TypeVar("Item", Backbone, Baseline, ReportFormat, Tracker)


@dataclass(frozen=True)
class Problem:
    """A plugin that failed to load, or an item of it that cannot be used."""

    plugin: str
    distribution: str
    message: str

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} of {self.distribution}: {self.message}"


@dataclass(frozen=True)
class Registered(Generic[Item]):
    """An item that a plugin registered, with the plugin's name and distribution."""

    item: Item
    plugin: str
    distribution: str
    entry: EntryPoint

    @property
    def build(self) -> str:
        """The distribution, for one other than toxbench with a hash of the plugin's files."""
        return (
            self.distribution if _is_built_in(self.distribution) else describe_content(self.entry)
        )

    @property
    def third_party_plugin(self) -> str | None:
        """The name of the plugin; None if it is built in."""
        return None if _is_built_in(self.distribution) else self.plugin


class Registry:
    """The items of all loaded plugins. Use `Registry.discover` to make one.

    Attributes:
        backbones: by name, like ``baselines``, ``formats`` and ``trackers``.
        problems: of plugins that failed, in the order in which they were found.
        environ: environment variables before any plugin was loaded.
    """

    def __init__(self, entries: Iterable[EntryPoint], problems: Iterable[Problem] = ()) -> None:
        self.environ = dict(os.environ)
        self.problems: list[Problem] = list(problems)
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._distributions: dict[str, str] = {}
        self._entries: dict[str, EntryPoint] = {}
        self._conflicts: dict[tuple[str, str], str] = {}  # (kind, name) -> message
        with redirect_stdout(sys.stderr):  # stdout is for results only
            for name, same_name_entries in _entries_by_name(entries).items():
                self._load(name, same_name_entries)
            self.backbones = self._collect("toxbench_backbones", Backbone)
            self.baselines = self._collect("toxbench_baselines", Baseline)
            self.formats = self._collect("toxbench_report_formats", ReportFormat)
            self.trackers = self._collect("toxbench_trackers", Tracker)

    @classmethod
    def discover(cls, only: Collection[str] | None = None) -> "Registry":
        """Load the installed plugins. A plugin that fails becomes a problem; the others load.

        Those of other distributions are imported by another process first.

        Args:
            only: names (of entry points) of the third-party plugins that may load; None: all of
                them. Built-in plugins always load.

        Raises:
            SettingsError: no installed plugin has such a name.
        """
        entries, problems = _allowed_entries(only)
        foreign = [entry for entry in entries if not _is_built_in(describe_distribution(entry))]
        if not foreign:
            return cls(entries, problems)
        from toxbench.plugin.sources import unusable_plugins  # its imports take time

        reasons = unusable_plugins(foreign)
        problems += [Problem(e.name, describe_distribution(e), r) for e, r in reasons]
        unusable = [entry for entry, _ in reasons]
        return cls([entry for entry in entries if entry not in unusable], problems)

    @classmethod
    def load(cls, only: Collection[str]) -> "Registry":
        """Load plugins in a process that they may end; otherwise as `discover`."""
        return cls(*_allowed_entries(only))

    @classmethod
    def with_item(
        cls, kind: Literal["formats", "backbones"], name: str, only: Collection[str] | None = None
    ) -> "Registry":
        """As `discover`, but load only toxbench's plugins if one of them has such an item."""
        check_plugins(only)
        built_in = cls.built_in()
        return built_in if name in getattr(built_in, kind) else cls.discover(only)

    @classmethod
    def built_in(cls) -> "Registry":
        """Load toxbench's own plugins only, without a search for others."""
        return cls(distribution(_BUILT_IN).entry_points.select(group=GROUP))

    @property
    def imported_plugins(self) -> dict[str, str]:
        """Plugins whose code has run in this process, even if it failed: name -> distribution."""
        return dict(self._distributions)

    @property
    def has_third_party_plugins(self) -> bool:
        """Whether code of other distributions was loaded, or tried to load."""
        return not all(map(_is_built_in, self._distributions.values()))

    def backbone(self, name: str) -> Registered[Backbone]:
        """Return the backbone of that name.

        Raises:
            PluginError: its plugin is broken, or may be, or two plugins claim the name.
            SettingsError: no plugin has a backbone of that name.
        """
        return self._find("Backbone", name, self.backbones)

    def requested_backbone(self, word: str) -> Registered[Backbone]:
        """Return the backbone that a word of ``--backbones`` names.

        The word is the name of a registered backbone, an id of the Hub with an optional
        ``@revision``, or a folder.

        Raises:
            PluginError: as `backbone`.
            SettingsError: the word is none of these, or a misspelt name.
        """
        if is_folder(word):
            return _without_plugin(generic.backbone_from_folder(Path(word).expanduser().resolve()))
        if "/" in word or "@" in word:
            return _without_plugin(generic.backbone_from_hub(word))
        try:
            return self.backbone(word)
        except SettingsError:
            if generic.is_typo(word, self.backbones):
                raise
        return _without_plugin(generic.backbone_from_hub(word))

    def stored_backbone(self, name: str, distribution: str) -> Registered[Backbone]:
        """Return the backbone of a stored cell or model; raises like `backbone`.

        A name of toxbench's that none of its plugins has is that of a Hub id or a folder.
        """
        is_registered = name in self.backbones or ("Backbone", name) in self._conflicts
        if _is_built_in(distribution) and not is_registered:
            return _without_plugin(generic.GenericBackbone(name=name, checkpoint=""))
        return self.backbone(name)

    def baseline(self, name: str) -> Registered[Baseline]:
        """Return the baseline of that name; raises like `backbone`."""
        return self._find("Baseline", name, self.baselines)

    def report_format(self, name: str) -> Registered[ReportFormat]:
        """Return the report format of that name; raises like `backbone`."""
        return self._find("ReportFormat", name, self.formats)

    def tracker(self, name: str) -> Registered[Tracker]:
        """Return the tracker of that name; raises like `backbone`."""
        return self._find("Tracker", name, self.trackers)

    def notify(self, hook: str, **arguments: object) -> list[Problem]:
        """Call an event hook of every plugin with copies of the arguments.

        Returns:
            the exceptions that plugins raised, which are not raised again.
        """
        with redirect_stdout(sys.stderr):
            _, problems = self._call(hook, arguments)
        return problems

    def _load(self, name: str, entries: list[EntryPoint]) -> None:
        if len(entries) > 1:
            claimants = " and ".join(map(describe_distribution, entries))
            message = f"the name is claimed by {claimants}; uninstall one"
            self._conflicts["plugin", name] = f"plugin {name!r}: {message}"
            self.problems.append(Problem(name, claimants, message))
            return
        self._entries[name] = entries[0]
        self._distributions[name] = describe_distribution(entries[0])
        try:
            module = entries[0].load()
            self._manager.register(module, name=name)
            self._manager.check_pending()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - only this plugin fails
            self._add_problem(name, error)
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)

    def _add_problem(self, plugin: str, error: BaseException) -> Problem:
        reason = " ".join(str(error).split()) or "no message"
        problem = Problem(plugin, self._distributions[plugin], f"{type(error).__name__}: {reason}")
        self.problems.append(problem)
        return problem

    def _call(
        self, hook: str, arguments: Mapping[str, object]
    ) -> tuple[list[tuple[str, Any]], list[Problem]]:
        """Call a hook of each plugin; return (plugin, result) pairs and the plugins' problems."""
        results: list[tuple[str, Any]] = []
        problems: list[Problem] = []
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            call: Callable[..., Any] = implementation.function
            try:
                if implementation.wrapper or implementation.hookwrapper:
                    raise TypeError(f"{hook} cannot be a wrapper around other plugins")
                value = call(*(copy.deepcopy(arguments[n]) for n in implementation.argnames))
                results.append((implementation.plugin_name, value))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - reported by the caller
                problems.append(self._add_problem(implementation.plugin_name, error))
        return results, problems

    def _collect(self, hook: str, kind: type[Item]) -> dict[str, Registered[Item]]:
        """Return the valid items of all plugins, without names that several plugins claim."""
        claims: dict[str, list[Registered[Item]]] = {}
        results, _ = self._call(hook, {})
        for plugin, value in sorted(results, key=lambda result: result[0]):
            try:
                items = [_validate_item(item, kind) for item in value]
            except (Exception, SystemExit) as error:  # noqa: BLE001 - only this plugin fails
                self._add_problem(plugin, error)
                continue
            for item in items:
                registered = Registered(
                    item, plugin, self._distributions[plugin], self._entries[plugin]
                )
                claims.setdefault(item.name, []).append(registered)
        for name, claimants in claims.items():
            if len(claimants) > 1:
                self._add_conflict(kind.__name__, name, claimants)
        return {name: items[0] for name, items in claims.items() if len(items) == 1}

    def _add_conflict(self, kind: str, name: str, claimants: list[Registered[Item]]) -> None:
        plugins = " and by ".join(f"plugin {c.plugin!r} of {c.distribution}" for c in claimants)
        message = f"{name!r} is claimed by {plugins}; uninstall one"
        self._conflicts[kind, name] = message
        self.problems.append(Problem(claimants[-1].plugin, claimants[-1].distribution, message))

    def _find(
        self, kind: str, name: str, items: Mapping[str, Registered[Item]]
    ) -> Registered[Item]:
        if (kind, name) in self._conflicts:
            raise PluginError(self._conflicts[kind, name])
        if name in items:
            return items[name]
        if ("plugin", name) in self._conflicts:
            raise PluginError(self._conflicts["plugin", name])
        problem = next((p for p in self.problems if p.plugin == name), None)
        if problem is not None:
            raise PluginError(str(problem))
        hint = did_you_mean(name, items)
        message = f"no {_KINDS[kind]} is called {safe_quote(name)}"
        if self.problems and not hint:
            raise PluginError(
                f"{message}; it may belong to a plugin that failed to load: {self.problems[0]}"
            )
        raise SettingsError(f"{message}{hint}; there are {', '.join(sorted(items))}")


class EventListener:
    """An object whose methods are event hooks, such as a started tracker."""

    def __init__(self, listener: object) -> None:
        """Register the object's hooks.

        Raises:
            pluggy.PluginValidationError: a hook has an unknown name or unknown arguments.
            TypeError: the object has no hooks.
        """
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._manager.register(listener)
        self._manager.check_pending()
        if not self._manager.get_hookcallers(listener):
            raise TypeError(f"{type(listener).__name__} has no hooks; mark its methods @hookimpl")

    def notify(self, hook: str, arguments: Mapping[str, object]) -> None:
        """Call a hook, if the object has it; raises the hook's exceptions."""
        getattr(self._manager.hook, hook)(**arguments)


def check_plugins(names: Collection[str] | None) -> None:
    """Raise `SettingsError` for a name that no installed plugin has; nothing is imported."""
    if names:  # without names, the search is not worth its time
        _allowed_entries(names)


def is_valid_name(text: str) -> bool:
    """Whether a backbone, baseline, format or tracker can have that name."""
    return _NAME.fullmatch(text) is not None


def _allowed_entries(only: Collection[str] | None) -> tuple[list[EntryPoint], list[Problem]]:
    """Return toxbench's entry points and those of the plugins in ``only``; None: all of them.

    Raises:
        SettingsError: no installed plugin has such a name.
    """
    entries, problems = _installed_entries()
    if only is None:
        return entries, problems
    names = {entry.name for entry in entries}
    for name in only:
        if name not in names:
            known = f"{safe_quote(name)}{did_you_mean(name, names)}"
            raise SettingsError(f"no plugin is called {known}; see: toxbench backbones")
    allowed = [e for e in entries if e.name in only or _is_built_in(describe_distribution(e))]
    return allowed, problems


def _installed_entries() -> tuple[list[EntryPoint], list[Problem]]:
    """Read the entry points of each distribution; of several with one name, only the first."""
    entries: dict[str, EntryPoints] = {}
    problems: list[Problem] = []
    for installed in distributions():
        try:
            found = installed.entry_points.select(group=GROUP)
            # A name is read only where it is needed, because all metadata is parsed for it.
            if found and _is_first(installed):
                entries.setdefault(installed.name.lower(), found)
        except Exception as error:  # noqa: BLE001 - only this distribution fails
            title = f"a distribution in {installed.locate_file('')}"
            with suppress(ValueError):  # its name may be unreadable, too
                title = str(installed.name)
            problems.append(Problem("?", title, f"unreadable metadata: {error}"))
    return list(chain.from_iterable(entries.values())), problems


def _is_first(installed: Distribution) -> bool:
    """Return whether no distribution of the same name is earlier on the path."""
    return distribution(installed.name).locate_file("") == installed.locate_file("")


def _entries_by_name(entries: Iterable[EntryPoint]) -> dict[str, list[EntryPoint]]:
    """Group entry points by name, sorted; an entry that is on the path twice counts once."""
    described = [(describe_distribution(entry), entry) for entry in entries]
    names: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    for distribution_name, entry in sorted(described, key=lambda pair: (pair[1].name, pair[0])):
        names.setdefault(entry.name, {}).setdefault((distribution_name, entry.value), entry)
    return {name: list(unique.values()) for name, unique in names.items()}


def _is_built_in(distribution: str) -> bool:
    """Return whether ``name version``, where a foreign name may hold spaces, is toxbench's."""
    return distribution.rpartition(" ")[0] == _BUILT_IN


def _without_plugin(backbone: generic.GenericBackbone) -> Registered[Backbone]:
    """Register a backbone that toxbench itself makes."""
    entry = EntryPoint("generic", "toxbench.plugin.generic", GROUP)
    return Registered(backbone, entry.name, f"{_BUILT_IN} {version(_BUILT_IN)}", entry)


def _validate_item(item: object, kind: type[Item]) -> Item:
    if not isinstance(item, kind):
        raise TypeError(f"expected {kind.__name__} objects, got {type(item).__name__}")
    if not is_valid_name(item.name):
        raise TypeError(f"name {item.name[:80]!r} must be 1 to 64 letters, digits, '-', '_' or '.'")
    return item
