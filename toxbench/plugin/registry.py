"""The only discovery code: entry points of the group ``toxbench``, each loaded on its own.

pluggy's own loader is not used: it lets one broken plugin stop all, and a second plugin of a
name silently replace the first.
"""

import copy
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distributions
from typing import Any, Generic, TypeVar

import pluggy

from toxbench.errors import PluginError, SettingsError, nearest
from toxbench.plugin import hookspecs
from toxbench.plugin.contracts import Backbone, Baseline, ReportFormat, Tracker

GROUP = "toxbench"
_OWN = "toxbench"  # the distribution whose plugins always load
_WORDS = {
    "Backbone": "backbone",
    "Baseline": "baseline",
    "ReportFormat": "format",
    "Tracker": "tracker",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Item = TypeVar("Item", Backbone, Baseline, ReportFormat, Tracker)


@dataclass(frozen=True)
class Problem:
    """A plugin, or something it brought, that cannot be used."""

    plugin: str
    distribution: str
    message: str

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} of {self.distribution}: {self.message}"


@dataclass(frozen=True)
class Registered(Generic[Item]):
    """Something a plugin brought, with where it came from."""

    item: Item
    plugin: str
    distribution: str

    @property
    def foreign(self) -> str | None:
        """The plugin that brought it, unless that is one of toxbench's own."""
        return None if _is_own_name(self.distribution) else self.plugin


class Registry:
    """What all installed plugins offer. Make one with `Registry.discover`."""

    def __init__(self, entries: Iterable[EntryPoint], problems: Iterable[Problem] = ()) -> None:
        self.environ = dict(os.environ)  # as it is before any plugin was loaded
        self.problems: list[Problem] = list(problems)
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._distributions: dict[str, str] = {}
        self._conflicts: dict[tuple[str, str], str] = {}  # (kind, name) -> who claims it
        for name, same in _by_name(entries).items():
            self._load(name, same)
        self.backbones = self._collect("toxbench_backbones", Backbone)
        self.baselines = self._collect("toxbench_baselines", Baseline)
        self.formats = self._collect("toxbench_report_formats", ReportFormat)
        self.trackers = self._collect("toxbench_trackers", Tracker)

    @classmethod
    def discover(cls, only: Collection[str] | None = None) -> "Registry":
        """Load installed plugins; what fails is in ``problems``, and harms nobody else.

        Args:
            only: plugins of other distributions that may load, by the name of their entry point;
                None: all of them. Those of toxbench itself always do.

        Raises:
            SettingsError: no installed plugin has such a name.
        """
        entries, problems = _installed()
        if only is None:
            return cls(entries, problems)
        names = {entry.name for entry in entries}
        for name in only:
            if name not in names:
                raise SettingsError(
                    f"no plugin is called {name!r}{nearest(name, names)}; see: toxbench backbones"
                )
        return cls([entry for entry in entries if _is_own(entry) or entry.name in only], problems)

    @property
    def imported(self) -> dict[str, str]:
        """Plugins whose code has run, also of those that then failed: name -> distribution."""
        return dict(self._distributions)

    def backbone(self, name: str) -> Registered[Backbone]:
        """Return the backbone of that name.

        Raises:
            PluginError: its plugin is broken, or may be, or two plugins claim the name.
            SettingsError: nobody offers it.
        """
        return self._asked_for("Backbone", name, self.backbones)

    def baseline(self, name: str) -> Registered[Baseline]:
        """Return the baseline of that name; raises as `backbone`."""
        return self._asked_for("Baseline", name, self.baselines)

    def report_format(self, name: str) -> Registered[ReportFormat]:
        """Return the report format of that name; raises as `backbone`."""
        return self._asked_for("ReportFormat", name, self.formats)

    def tracker(self, name: str) -> Registered[Tracker]:
        """Return the tracker of that name; raises as `backbone`."""
        return self._asked_for("Tracker", name, self.trackers)

    @property
    def has_foreign(self) -> bool:
        """Whether code of other distributions was loaded, or tried to load."""
        return any(not _is_own_name(who) for who in self._distributions.values())

    def tell(self, hook: str, **arguments: object) -> list[Problem]:
        """Call an event hook of every plugin; return what they raised instead of raising it.

        Each gets copies: what a plugin changes in them is changed for nobody else.
        """
        _, problems = self._call(hook, arguments)
        return problems

    def _load(self, name: str, entries: list[EntryPoint]) -> None:
        if len(entries) > 1:
            both = " and ".join(_distribution(entry) for entry in entries)
            message = f"the name is claimed by {both}; uninstall one"
            self._conflicts["plugin", name] = f"plugin {name!r}: {message}"
            self.problems.append(Problem(name, both, message))
            return
        self._distributions[name] = _distribution(entries[0])
        try:
            module = entries[0].load()
            self._manager.register(module, name=name)
            self._manager.check_pending()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - reported, and only this plugin is lost
            self._problem(name, error)
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)

    def _problem(self, plugin: str, error: BaseException) -> Problem:
        reason = " ".join(str(error).split()) or "no message"
        problem = Problem(plugin, self._distributions[plugin], f"{type(error).__name__}: {reason}")
        self.problems.append(problem)
        return problem

    def _call(
        self, hook: str, arguments: Mapping[str, object]
    ) -> tuple[list[tuple[str, Any]], list[Problem]]:
        """Call one hook of each plugin in a try of its own."""
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
                problems.append(self._problem(implementation.plugin_name, error))
        return results, problems

    def _collect(self, hook: str, kind: type[Item]) -> dict[str, Registered[Item]]:
        found: dict[str, list[Registered[Item]]] = {}
        results, _ = self._call(hook, {})
        for plugin, value in sorted(results, key=lambda result: result[0]):
            try:
                items = [_checked(item, kind) for item in value]
            except (Exception, SystemExit) as error:  # noqa: BLE001 - only this plugin is lost
                self._problem(plugin, error)
                continue
            for item in items:
                new = Registered(item, plugin, self._distributions[plugin])
                found.setdefault(item.name, []).append(new)
        for name, claims in found.items():
            if len(claims) > 1:
                self._conflict(kind.__name__, name, claims)
        return {name: claims[0] for name, claims in found.items() if len(claims) == 1}

    def _conflict(self, kind: str, name: str, claims: list[Registered[Item]]) -> None:
        who = " and by ".join(f"plugin {c.plugin!r} of {c.distribution}" for c in claims)
        message = f"{name!r} is claimed by {who}; uninstall one"
        self._conflicts[kind, name] = message
        self.problems.append(Problem(claims[-1].plugin, claims[-1].distribution, message))

    def _asked_for(
        self, kind: str, name: str, known: Mapping[str, Registered[Item]]
    ) -> Registered[Item]:
        if (kind, name) in self._conflicts:
            raise PluginError(self._conflicts[kind, name])
        if name in known:
            return known[name]
        if ("plugin", name) in self._conflicts:
            raise PluginError(self._conflicts["plugin", name])
        broken = next((p for p in self.problems if p.plugin == name), None)
        if broken is not None:
            raise PluginError(str(broken))
        hint = nearest(name, known)
        missing = f"no {_WORDS[kind]} is called {name!r}"
        if self.problems and not hint:
            raise PluginError(
                f"{missing}; it may belong to one that failed to load: {self.problems[0]}"
            )
        raise SettingsError(f"{missing}{hint}; there are {', '.join(sorted(known))}")


class Listener:
    """Something that is told of events: an object whose methods are event hooks."""

    def __init__(self, plugin: object) -> None:
        """Check its hooks.

        Raises:
            pluggy.PluginValidationError: there is no such hook, or not with these arguments.
            TypeError: it has no hook at all.
        """
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._manager.register(plugin)
        self._manager.check_pending()
        if not self._manager.get_hookcallers(plugin):
            raise TypeError(f"{type(plugin).__name__} has no hooks; mark its methods @hookimpl")

    def tell(self, hook: str, arguments: Mapping[str, object]) -> None:
        """Call a hook, where there is one; raises what it raises."""
        getattr(self._manager.hook, hook)(**arguments)


def _by_name(entries: Iterable[EntryPoint]) -> dict[str, list[EntryPoint]]:
    """Group entry points by name, in the order of names; one seen twice on the path counts once."""
    names: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    for entry in sorted(entries, key=lambda entry: entry.name):
        names.setdefault(entry.name, {}).setdefault((_distribution(entry), entry.value), entry)
    return {name: list(same.values()) for name, same in names.items()}


def _is_own(entry: EntryPoint) -> bool:
    return _is_own_name(_distribution(entry))


def _is_own_name(distribution: str) -> bool:
    return distribution.split()[0] == _OWN


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"


def is_name(text: str) -> bool:
    """Whether a backbone, baseline or format can have that name."""
    return _NAME.fullmatch(text) is not None


def _checked(item: object, kind: type[Item]) -> Item:
    if not isinstance(item, kind):
        raise TypeError(f"expected {kind.__name__} objects, got {type(item).__name__}")
    if not is_name(item.name):
        raise TypeError(f"name {item.name[:80]!r} must be 1 to 64 letters, digits, '-', '_' or '.'")
    return item


def _installed() -> tuple[list[EntryPoint], list[Problem]]:
    """Read each distribution's entry points in a try of its own; of one name, the first."""
    found: list[EntryPoint] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for distribution in distributions():
        name = str(distribution.name)
        if name.lower() in seen:
            continue
        seen.add(name.lower())
        try:
            found.extend(distribution.entry_points.select(group=GROUP))
        except Exception as error:  # noqa: BLE001 - reported; other distributions are not harmed
            problems.append(Problem("?", name, f"unreadable entry_points.txt: {error}"))
    return found, problems
