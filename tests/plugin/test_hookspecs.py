"""Every hook is documented: in hookspecs.py with its arguments and errors, and in the README."""

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from toxbench.plugin import hookspecs

README = Path(__file__).resolve().parents[2] / "README.md"
Hook = Callable[..., object]
# pluggy's own mark on a specification
HOOKS = {name: f for name, f in vars(hookspecs).items() if hasattr(f, "toxbench_spec")}


def undocumented(name: str, hook: Hook, readme: str) -> list[str]:
    """Say what is missing of the documentation of a hook."""
    text = inspect.getdoc(hook) or ""
    summary = text.partition("\n\n")[0]
    arguments = inspect.signature(hook).parameters
    returns = [] if "None" in str(inspect.signature(hook).return_annotation) else ["Returns:"]
    wanted = ["Called ", "On errors: ", *returns, *(["Args:"] if arguments else [])]
    missing = [word.strip() for word in wanted if f"\n{word}" not in text]
    missing += [a for a in arguments if f"\n    {a}: " not in text]
    missing += [] if "." in summary else ["a summary"]
    return missing + ([] if f"`{name}" in readme else ["the README's paragraph"])


def hooks_paragraph() -> str:
    if not README.is_file():
        pytest.skip("README.md is not beside the tests")
    found = [p for p in README.read_text().split("\n\n") if p.startswith("The hooks: ")]
    assert len(found) == 1, "README.md has one paragraph that starts with 'The hooks: '"
    return found[0]


def test_there_are_hooks() -> None:
    assert len(HOOKS) >= 5
    assert all(name.startswith("toxbench_") for name in HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented(name: str) -> None:
    assert undocumented(name, HOOKS[name], hooks_paragraph()) == []


def bare(cell: object, epoch: object) -> None:
    """Hear of it"""


def half(cell: object, epoch: object) -> list[object]:
    """Hear of it.

    Called when it happens.

    Args:
        cell: which.

    On errors: nothing.
    """


@pytest.mark.parametrize(
    ("hook", "missing"),
    [
        (bare, ["Called", "On errors:", "Args:", "cell", "epoch", "a summary"]),
        (half, ["Returns:", "epoch"]),
    ],
)
def test_what_is_missing_is_seen(hook: Hook, missing: list[str]) -> None:
    assert undocumented("toxbench_x", hook, "The hooks: `toxbench_x(cell, epoch)`.") == missing
    assert undocumented("toxbench_x", hook, "none") == [*missing, "the README's paragraph"]
