"""The surface that users depend on changes only on purpose, with its file in tests/frozen/."""

import pytest
from frozen_surface import FOLDER, SURFACES


@pytest.mark.parametrize("file", SURFACES)
def test_surface_is_as_frozen(file: str) -> None:
    expected = (FOLDER / file).read_text(encoding="utf-8")
    assert SURFACES[file]() == expected, "if on purpose: python tests/helpers/frozen_surface.py"
