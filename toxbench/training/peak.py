"""What a device manages at best: one large matrix product in its precision, timed."""

import time

import torch

from toxbench.training.device import Device

_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
_REPEATS = 10


def matrix_peak(device: Device) -> float:
    """Return the floating-point operations a second of the fastest of some matrix products.

    The numbers are random: a GPU multiplies constant matrices with less power, and so faster.
    """
    sizes = _SIZES.get(device.kind, (2048,))
    return max(_operations_a_second(device, size) for size in sizes)


def _operations_a_second(device: Device, size: int) -> float:
    dtype = torch.bfloat16 if device.precision == "bf16" else torch.float32
    generator = torch.Generator(device.torch).manual_seed(0)
    matrix = torch.randn(size, size, generator=generator, device=device.torch).to(dtype)
    product = torch.empty_like(matrix)
    fastest = float("inf")
    for _ in range(_REPEATS):
        wait(device)
        started = time.perf_counter()
        torch.mm(matrix, matrix, out=product)
        wait(device)
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * size**3 / fastest


def wait(device: Device) -> None:
    """Wait until a device has computed everything that it was given."""
    if device.kind == "cuda":
        torch.cuda.synchronize()
    elif device.kind == "mps":
        torch.mps.synchronize()
