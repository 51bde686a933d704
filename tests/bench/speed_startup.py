"""The time until a training can start, measured in a separate process.

``python tests/bench/speed_startup.py`` reads the settings and the backbone from stdin.
"""

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from toxbench.settings import RunSettings

STAGES = ("import", "load", "tokenise", "build")


def startup_seconds(settings: RunSettings, backbone: str) -> dict[str, float]:
    """Start one backbone in a fresh process.

    Args:
        settings: data, weights, device and training settings.
        backbone: the name of one of their backbones.

    Returns:
        the seconds of each stage, and ``total``, which is measured from the outside: the first
        stage includes Python's start and the imports that every command needs.
    """
    request = json.dumps({"settings": settings.model_dump(mode="json"), "backbone": backbone})
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request)
        process.stdin.close()
        line = process.stdout.readline()
        total = time.perf_counter() - started
    assert process.returncode == 0
    inside: dict[str, float] = json.loads(line)
    return {"import": total - sum(inside.values()), **inside, "total": total}


def main() -> None:
    """Start the backbone and write the seconds of each stage except the first."""
    answer, sys.stdout = sys.stdout, sys.stderr  # keep the output of plugins out of the answer
    request = json.loads(sys.stdin.read())
    settings = RunSettings.model_validate(request["settings"])
    name: str = request["backbone"]

    from toxbench.benchmark.plan import backbone_candidate
    from toxbench.benchmark.validate import resolve_split
    from toxbench.data.load import load_dataset
    from toxbench.data.tokenization import tokenise
    from toxbench.plugin.registry import Registry
    from toxbench.training.device import choose_device
    from toxbench.training.head import Head
    from toxbench.training.trainer import Trainer
    from toxbench.training.weights import WeightsChoice, WeightsFinder

    clock = [time.perf_counter()]
    finder = WeightsFinder(WeightsChoice.parse(settings.weights))
    registry = Registry.discover(settings.plugins)
    comments = load_dataset(settings.data, settings.columns, resolve_split(settings)).comments
    registered, label_count = registry.backbone(name), len(comments.labels)
    candidate = backbone_candidate(registered, settings, finder, label_count)
    backbone, weights, chosen = candidate.backbone, candidate.weights, candidate.settings
    folder = weights.folder
    assert folder is not None
    clock.append(time.perf_counter())
    with TemporaryDirectory() as empty:  # cached tokens would not be tokenised again
        tokenizer = backbone.tokenizer(folder)
        tokens = tokenise(tokenizer, "", comments.texts, chosen.max_length, Path(empty))
    clock.append(time.perf_counter())
    module = backbone.build(folder, len(comments.labels))
    device = choose_device(settings.device, chosen.precision)
    head = Head(weights.head or backbone.head)
    Trainer(module, head, tokens, comments.targets, chosen, device)
    clock.append(time.perf_counter())
    durations = [end - start for start, end in pairwise(clock)]
    print(json.dumps(dict(zip(STAGES[1:], durations, strict=True))), file=answer, flush=True)


if __name__ == "__main__":
    main()
