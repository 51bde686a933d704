"""Every hook is documented, in hookspecs.py and in the guide of plugins."""

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from toxbench.plugin import hookspecs

GUIDE = Path(__file__).parents[2] / "toxbench" / "docs" / "how-to" / "write-a-plugin.md"
Hook = Callable[..., object]
HOOKS = {  # pluggy sets the attribute
    name: f for name, f in vars(hookspecs).items() if hasattr(f, "toxbench_spec")
}


def missing_parts(name: str, hook: Hook, guide: str) -> list[str]:
    """Return the parts that the documentation of a hook lacks."""
    text = inspect.getdoc(hook) or ""
    summary = text.partition("\n\n")[0]
    arguments = inspect.signature(hook).parameters
    returns = [] if "None" in str(inspect.signature(hook).return_annotation) else ["Returns:"]
    required = ["Called ", "On errors: ", *returns, *(["Args:"] if arguments else [])]
    missing = [word.strip() for word in required if f"\n{word}" not in text]
    missing += [a for a in arguments if f"\n    {a}: " not in text]
    missing += [] if "." in summary else ["a summary"]
    return missing + ([] if f"`{name}" in guide else ["the guide's paragraph"])


def hooks_paragraph() -> str:
    if not GUIDE.is_file():
        pytest.skip("the sources are not beside the tests")
    text = GUIDE.read_text(encoding="utf-8")
    paragraphs = [p for p in text.split("\n\n") if p.startswith("The hooks: ")]
    assert len(paragraphs) == 1, f"{GUIDE.name} needs one paragraph that starts with 'The hooks: '"
    return paragraphs[0]


def test_hooks_have_the_prefix() -> None:
    assert len(HOOKS) >= 5
    assert all(name.startswith("toxbench_") for name in HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented(name: str) -> None:
    assert missing_parts(name, HOOKS[name], hooks_paragraph()) == []


def undocumented(cell: object, epoch: object) -> None:
    """Handle it"""


def half_documented(cell: object, epoch: object) -> list[object]:
    """Handle it.

    Called when it happens.

    Args:
        cell: the cell.

    On errors: nothing.
    """


@pytest.mark.parametrize(
    ("hook", "missing"),
    [
        (undocumented, ["Called", "On errors:", "Args:", "cell", "epoch", "a summary"]),
        (half_documented, ["Returns:", "epoch"]),
    ],
)
def test_missing_parts_are_reported(hook: Hook, missing: list[str]) -> None:
    paragraph = "The hooks: `toxbench_x(cell, epoch)`."
    assert missing_parts("toxbench_x", hook, paragraph) == missing
    assert missing_parts("toxbench_x", hook, "none") == [*missing, "the guide's paragraph"]
