"""The device and precision of a training, its random state and memory, and lack of memory."""

import gc
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch

from toxbench.errors import CellsFailedError, SettingsError
from toxbench.util.processes import TorchrunEnv
from toxbench.util.text import safe_quote

Precision = Literal["bf16", "fp32"]
DEVICES = ("auto", "cuda", "mps", "cpu")
_MATRIX_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
_MATRIX_REPEATS = 10
Result = TypeVar("Result")
# Of the RuntimeError that torch raises if memory runs out on a CPU.
_CPU_MESSAGES = ("can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Device:
    """A torch device and the precision of its matrix products.

    Attributes:
        torch: device for tensors.
        precision: ``bf16`` (autocast) or ``fp32``.
        name: model of the processor or GPU.
    """

    torch: torch.device
    precision: Precision
    name: str

    @property
    def kind(self) -> str:
        """``cuda``, ``mps`` or ``cpu``."""
        return self.torch.type

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context in which matrix products use the precision of this device."""
        return torch.amp.autocast_mode.autocast(
            self.kind, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )


def choose_device(requested: str = "auto", precision: str = "auto") -> Device:
    """Return the requested device.

    Args:
        requested: one of `DEVICES`; ``auto`` is cuda, else mps, else cpu.
        precision: ``bf16``, ``fp32``, or ``auto`` for bf16 if the hardware supports it.

    Raises:
        SettingsError: the requested device is unknown or not available on this machine. No other
            device replaces it.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    default = next(kind for kind, is_available in available.items() if is_available)
    kind = default if requested == "auto" else requested
    if kind not in available:
        raise SettingsError(f"--device {safe_quote(requested)} is not one of {', '.join(DEVICES)}")
    if not available[kind]:
        raise SettingsError(f"--device {kind} is not available here; use --device auto or cpu")
    device = torch.device(kind)
    if precision == "auto":
        precision = "bf16" if _supports_bf16(kind) else "fp32"
    return Device(device, "bf16" if precision == "bf16" else "fp32", _device_name(kind))


def assign_device(requested: str, process: TorchrunEnv) -> None:
    """Make ``cuda`` refer to the GPU of this process; on a CPU, only check the request.

    Args:
        requested: as in `choose_device`.
        process: rank of this process, as torchrun sets it.

    Raises:
        SettingsError: as `choose_device`; this machine has fewer GPUs than processes; or the
            device is mps, on which several processes cannot train together.
    """
    kind = choose_device(requested, "fp32").kind
    if kind == "mps":
        raise SettingsError("torchrun's processes cannot train together on mps; use --device cpu")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if process.local_size > count:
            raise SettingsError(
                f"torchrun started {process.local_size} processes on a machine with {count} GPUs; "
                f"use --nproc-per-node {count}"
            )
        torch.cuda.set_device(process.local_rank)


def matrix_peak(device: Device) -> float:
    """Return the floating-point operations per second of the fastest matrix product measured.

    The matrices are random: a GPU multiplies constant ones with less power, and so faster.
    """
    sizes = _MATRIX_SIZES.get(device.kind, (2048,))
    return max(_operations_per_second(device, size) for size in sizes)


def wait_for_device(device: Device) -> None:
    """Wait until the device has finished all its computations."""
    torch.get_device_module(device.kind).synchronize()


class PeakMemory:
    """Peak memory between `start` and `read`: of the GPU's tensors, else of the process."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def start(self) -> None:
        """Reset the peak; possible on Linux and with CUDA."""
        if self._device.kind == "cuda":
            torch.cuda.reset_peak_memory_stats()
        elif sys.platform == "linux":
            try:
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            except OSError:
                # Not permitted in some containers: the peak is then since the process started.
                return

    def read(self) -> int | None:
        """Return the peak in bytes; None on Windows, whose standard library has no such number."""
        if self._device.kind == "cuda":
            return torch.cuda.max_memory_allocated()
        if sys.platform == "linux":
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        if sys.platform == "win32":
            return None
        import resource  # does not exist on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def seeded(seed: int, device: Device) -> Iterator[None]:
    """Seed torch's generators inside the context, then restore the caller's state."""
    devices = [torch.cuda.current_device()] if device.kind == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def random_state(device: Device) -> list[torch.Tensor]:
    """Return the states of torch's generators: the host's, then the device's if it has one."""
    states = [torch.get_rng_state()]
    if device.kind != "cpu":
        states.append(torch.get_device_module(device.kind).get_rng_state())
    return states


def set_random_state(device: Device, states: Sequence[torch.Tensor]) -> None:
    """Set torch's generators to states that `random_state` returned."""
    torch.set_rng_state(states[0])
    if device.kind != "cpu":
        torch.get_device_module(device.kind).set_rng_state(states[1])


def _supports_bf16(kind: str) -> bool:
    """Whether the hardware multiplies bf16; emulated bf16 is slower than fp32."""
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


def _operations_per_second(device: Device, size: int) -> float:
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


class OutOfMemoryError(CellsFailedError):
    """Memory runs out even with the smallest piece."""


def retry_on_oom(work: Callable[[int], Result], size: int, smallest: int) -> tuple[Result, int]:
    """Run work in pieces; if memory runs out, run it again with pieces of half the size.

    Returns:
        the result of ``work``, and the size that fitted into memory.

    Raises:
        OutOfMemoryError: the smallest size does not fit.
    """
    while True:
        result = _attempt(work, size)
        if result is not None:
            return result[0], size
        if size <= smallest:
            raise OutOfMemoryError(
                "memory ran out with the smallest batch; "
                "use a smaller --max-length, another --device or fewer --workers"
            )
        size = max(smallest, -(-size // 2))
        # The error no longer exists, nor do its frames, which referred to tensors.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _attempt(work: Callable[[int], Result], size: int) -> tuple[Result] | None:
    """Return the result in a tuple, or None if memory ran out."""
    try:
        return (work(size),)
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:
        if any(message in str(error) for message in _CPU_MESSAGES):
            return None
        raise
