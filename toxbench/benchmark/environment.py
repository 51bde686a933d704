"""Descriptions of the machine and the code that compute cells, stored with the results."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

import torch

from toxbench.plugin.registry import Registry
from toxbench.records import Environment
from toxbench.store.manifest import CodeVersions, LoadedPlugin
from toxbench.training.device import Device

_PACKAGES = ("toxbench", "torch", "transformers", "scikit-learn", "numpy", "pandas")


def environment(device: Device) -> Environment:
    """Describe this machine and this code, without paths or the name of the user."""
    return Environment(
        device=device.kind,
        device_name=device.name,
        precision=device.precision,
        threads=torch.get_num_threads(),
        versions=package_versions(),
        commit=_git_commit(),
    )


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that scores may depend on."""
    return {"python": platform.python_version()} | dict(map(_version, _PACKAGES))


def _version(package: str) -> tuple[str, str]:
    try:
        return package, version(package)
    except PackageNotFoundError:
        return package, "not installed"


def _git_commit() -> str | None:
    try:
        process = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() or None


def describe_code(registry: Registry) -> CodeVersions:
    """Describe the imported plugins, and the packages that scores may depend on."""
    return CodeVersions(
        plugins=tuple(
            LoadedPlugin(name=name, distribution=distribution)
            for name, distribution in sorted(registry.imported_plugins.items())
        ),
        versions=package_versions(),
    )
