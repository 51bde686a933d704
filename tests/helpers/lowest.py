"""Writes the lowest versions that pyproject.toml allows into a requirements file.

``tox -e lowest`` installs them. torch is left out: its wheels are large.
"""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def lowest_versions() -> Iterator[str]:
    """Yield a requirement for exactly the lower bound of each dependency, extra and test tool."""
    content = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    project = content["project"]
    groups = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        content["dependency-groups"]["test"],
    ]
    for requirement in (Requirement(text) for group in groups for text in group):
        bounds = [s.version for s in requirement.specifier if s.operator in {">=", "=="}]
        if requirement.name != "torch":
            extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
            yield f"{requirement.name}{extras}=={bounds[0]}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("\n".join(lowest_versions()), encoding="utf-8")
