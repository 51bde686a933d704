"""Damaged tables are read or refused; ten thousand of them: tests/bench/test_fuzz_tables.py."""

from pathlib import Path

import pytest
from fuzz_tables import fuzz

pytestmark = pytest.mark.slow


@pytest.mark.faults(2, 3, 6, 7, 11)
def test_damaged_tables_are_read_or_refused(tmp_path: Path) -> None:
    fuzz(tmp_path, 300)
