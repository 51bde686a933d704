"""The table of faults that the README shows is the one that `pytest -m faults` prints."""

from pathlib import Path

from fault_matrix import MATRIX, as_markdown


def test_the_readme_shows_the_matrix() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert as_markdown() in readme


def test_no_row_is_missing() -> None:
    assert list(MATRIX) == list(range(1, 45))
