"""Which code a run is made of, for the manifest beside its results."""

from toxbench.benchmark.cell import package_versions
from toxbench.plugin.registry import Registry
from toxbench.store.manifest import Code, LoadedPlugin


def code_of(registry: Registry) -> Code:
    """Describe the plugins that were imported, and the versions of the packages that compute."""
    return Code(
        plugins=tuple(
            LoadedPlugin(name=name, distribution=distribution)
            for name, distribution in sorted(registry.imported.items())
        ),
        versions=package_versions(),
    )
