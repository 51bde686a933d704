"""Choosing a device, and leaving the caller's generators alone."""

import pytest
import torch

from toxbench.errors import SettingsError
from toxbench.training.device import PeakMemory, choose_device, matrix_peak, seeded


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(SettingsError, match="cuda"):
        choose_device("cuda")


def test_precision_follows_the_hardware_or_the_user() -> None:
    assert choose_device("cpu", "fp32").precision == "fp32"
    assert choose_device("cpu", "bf16").precision == "bf16"
    assert choose_device("cpu", "auto").precision in {"bf16", "fp32"}


def test_autocast_computes_in_the_precision_of_the_device() -> None:
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with choose_device("cpu", precision).autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_seeding_gives_the_callers_state_back() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded(99, choose_device("cpu")):
        torch.rand(1000)
    assert torch.equal(torch.rand(3), expected)


def test_matrix_peak_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    assert matrix_peak(choose_device("cpu", "fp32")) > 1e6
    assert torch.equal(torch.get_rng_state(), before)


def test_peak_memory_sees_an_allocation() -> None:
    memory = PeakMemory(choose_device("cpu"))
    memory.start()
    before = memory.read()
    torch.ones(64 * 2**20)  # 256 MiB of floats
    assert memory.read() >= before + 200 * 2**20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_auto_takes_the_gpu_in_bf16() -> None:
    device = choose_device()
    assert (device.kind, device.precision) == ("cuda", "bf16")
