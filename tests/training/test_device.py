"""The choice of a device, its precision, its random state and its peak memory."""

import pytest
import torch

from toxbench.errors import SettingsError
from toxbench.training.device import PeakMemory, choose_device, matrix_peak, seeded


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_unavailable_device_is_refused() -> None:
    with pytest.raises(SettingsError, match="cuda"):
        choose_device("cuda")


def test_precision_is_chosen_or_requested() -> None:
    assert choose_device("cpu", "fp32").precision == "fp32"
    assert choose_device("cpu", "bf16").precision == "bf16"
    assert choose_device("cpu", "auto").precision in {"bf16", "fp32"}


def test_autocast_uses_the_devices_precision() -> None:
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with choose_device("cpu", precision).autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_seeded_restores_the_callers_state() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded(99, choose_device("cpu")):
        torch.rand(1000)
    assert torch.equal(torch.rand(3), expected)


def test_matrix_peak_keeps_the_random_state() -> None:
    before = torch.get_rng_state()
    assert matrix_peak(choose_device("cpu", "fp32")) > 1e6
    assert torch.equal(torch.get_rng_state(), before)


def test_peak_memory_includes_an_allocation() -> None:
    memory = PeakMemory(choose_device("cpu"))
    memory.start()
    before = memory.read()
    torch.ones(64 * 2**20)  # 256 MiB of floats
    assert memory.read() >= before + 200 * 2**20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_auto_chooses_the_gpu_in_bf16() -> None:
    device = choose_device()
    assert (device.kind, device.precision) == ("cuda", "bf16")
