"""Ten thousand damaged tables: pytest tests/bench/test_fuzz_tables.py -m bench."""

from pathlib import Path

import pytest
from fuzz_tables import fuzz


@pytest.mark.bench
def test_many_damaged_tables_are_read_or_refused(tmp_path: Path) -> None:
    fuzz(tmp_path, 10_000)
