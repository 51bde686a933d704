"""Which device trains, in which precision, how fast it is and what it cost in memory."""

import platform
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from toxbench.errors import SettingsError
from toxbench.util.torchrun import TorchrunEnv

Precision = Literal["bf16", "fp32"]
DEVICES = ("auto", "cuda", "mps", "cpu")
_MATRIX_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
_MATRIX_REPEATS = 10


@dataclass(frozen=True)
class Device:
    """Where and how a cell computes."""

    torch: torch.device
    precision: Precision
    name: str

    @property
    def kind(self) -> str:
        """``cuda``, ``mps`` or ``cpu``."""
        return self.torch.type

    def autocast(self) -> AbstractContextManager[object]:
        """Context in which matrix products use the precision of this device."""
        return torch.amp.autocast_mode.autocast(
            self.kind, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )


def choose_device(asked: str = "auto", precision: str = "auto") -> Device:
    """Resolve the device (cuda, else mps, else cpu) and the precision it is fast in.

    Raises:
        SettingsError: a device was named that is not here; never another one in its place.
    """
    kind = _auto() if asked == "auto" else asked
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if kind not in available:
        raise SettingsError(f"--device {asked!r} is none of {', '.join(DEVICES)}")
    if not available[kind]:
        raise SettingsError(f"--device {kind}: there is none here; use --device auto or cpu")
    device = torch.device(kind)
    if precision == "auto":
        precision = "bf16" if _computes_bf16(kind) else "fp32"
    return Device(device, "bf16" if precision == "bf16" else "fp32", _device_name(kind))


def take_device(asked: str, place: TorchrunEnv) -> None:
    """Make a process's own GPU the one that ``cuda`` means in it, where it computes on GPUs.

    Raises:
        SettingsError: as `choose_device`; this machine has fewer GPUs than processes; or several
            processes cannot train together on that kind of device.
    """
    kind = choose_device(asked, "fp32").kind
    if kind == "mps":
        raise SettingsError("torchrun's processes cannot train together on mps; use --device cpu")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if place.local_size > count:
            raise SettingsError(
                f"torchrun started {place.local_size} processes on a machine with {count} GPUs; "
                f"use --nproc-per-node {count}"
            )
        torch.cuda.set_device(place.local_rank)


def _auto() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _computes_bf16(kind: str) -> bool:
    """Whether the hardware multiplies bf16 itself; emulated, it is slower than fp32."""
    if kind == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if kind == "cpu":
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def _device_name(kind: str) -> str:
    if kind == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def matrix_peak(device: Device) -> float:
    """Return the floating-point operations a second of the fastest matrix product measured.

    The numbers are random: a GPU multiplies constant matrices with less power, and so faster.
    """
    sizes = _MATRIX_SIZES.get(device.kind, (2048,))
    return max(_operations_a_second(device, size) for size in sizes)


def _operations_a_second(device: Device, size: int) -> float:
    dtype = torch.bfloat16 if device.precision == "bf16" else torch.float32
    generator = torch.Generator(device.torch).manual_seed(0)
    matrix = torch.randn(size, size, generator=generator, device=device.torch).to(dtype)
    product = torch.empty_like(matrix)
    fastest = float("inf")
    for _ in range(_MATRIX_REPEATS):
        wait_for_device(device)
        started = time.perf_counter()
        torch.mm(matrix, matrix, out=product)
        wait_for_device(device)
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * size**3 / fastest


def wait_for_device(device: Device) -> None:
    """Wait until the device has finished all its computations."""
    if device.kind == "cuda":
        torch.cuda.synchronize()
    elif device.kind == "mps":
        torch.mps.synchronize()


class PeakMemory:
    """Bytes at the peak between `start` and `read`: of the GPU's tensors, else of the process."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def start(self) -> None:
        """Forget earlier peaks where the system lets us (Linux, CUDA)."""
        if self._device.kind == "cuda":
            torch.cuda.reset_peak_memory_stats()
        elif sys.platform == "linux":
            try:
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            except OSError:
                return  # not permitted in some containers: the peak then counts from the start

    def read(self) -> int:
        """Return the peak in bytes."""
        if self._device.kind == "cuda":
            return torch.cuda.max_memory_allocated()
        if sys.platform == "linux":
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def seeded(seed: int, device: Device) -> Iterator[None]:
    """Seed torch's generators inside, and give the caller its own state back afterwards."""
    devices = [torch.cuda.current_device()] if device.kind == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def random_state(device: Device) -> list[torch.Tensor]:
    """Return the states of torch's generators: the host's, and the device's own."""
    states = [torch.get_rng_state()]
    if device.kind == "cuda":
        states.append(torch.cuda.get_rng_state())
    if device.kind == "mps":
        states.append(torch.mps.get_rng_state())
    return states


def set_random_state(device: Device, states: Sequence[torch.Tensor]) -> None:
    """Put torch's generators back to what `random_state` returned."""
    torch.set_rng_state(states[0])
    if device.kind == "cuda":
        torch.cuda.set_rng_state(states[1])
    if device.kind == "mps":
        torch.mps.set_rng_state(states[1])
