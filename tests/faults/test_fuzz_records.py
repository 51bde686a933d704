"""Edited records of every kind: commands end with exit code 0 or 6, never with a bug."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz_records import make_results, stored_kinds, with_accepted_edits

from toxbench.store.cells import CellStore

pytestmark = [pytest.mark.slow, pytest.mark.faults(67)]

Command = Callable[..., tuple[int, str]]
KINDS = ("cell", "rows", "protocol", "failure", "manifest", "model", "trial", "tuned", "quoted")
IN_REPORT = {"cell", "protocol", "trial"}  # a report takes seconds; tests/bench draws them all


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> CellStore:
    return make_results(tmp_path_factory.mktemp("fuzz") / "run", checkpoint)


def commands(store: CellStore) -> dict[str, tuple[str, ...]]:
    folder = str(store.folder)
    return {
        "leaderboard": ("leaderboard", folder, "--full"),
        "show": ("show", "bert", folder),
        "predict": ("predict", "you fool", "--results", folder),
        "report": ("report", folder),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_edited_fields_never_end_in_a_bug(store: CellStore, command: Command, kind: str) -> None:
    """Edits that readers accept are kept together; the readers refuse the others."""
    record = stored_kinds(store)[kind]
    content, accepted = with_accepted_edits(record, random.Random(kind))
    assert accepted
    with record.edited(content):
        for name, words in commands(store).items():
            if name != "report" or kind in IN_REPORT:
                code, error = command(*words)
                assert code in {0, 6}, (name, error)
