"""How long it takes until a training can begin, measured in a process of its own.

``python -m toxbench.speed.startup`` reads what to start from its standard input.
"""

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from toxbench.errors import PluginError
from toxbench.settings import RunSettings

STAGES = ("import", "load", "tokenise", "build")


def startup_seconds(settings: RunSettings, backbone: str) -> dict[str, float]:
    """Start one backbone in a fresh process.

    Args:
        settings: data, weights, device and training settings.
        backbone: one of theirs.

    Returns:
        the stages' seconds, and ``total``, which is from the outside: Python's own start and the
        imports that every command needs are in its first stage.

    Raises:
        PluginError: the process failed.
    """
    asked = json.dumps({"settings": settings.model_dump(mode="json"), "backbone": backbone})
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "toxbench.speed.startup"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(asked)
        process.stdin.close()
        line = process.stdout.readline()
        total = time.perf_counter() - started
    if process.returncode != 0 or not line:
        raise PluginError(f"{backbone} could not be started in a process of its own")
    inside: dict[str, float] = json.loads(line)
    first = total - sum(inside.values())
    return {"import": first, **inside, "total": total}


def main() -> None:
    """Start what standard input says and write the seconds of each stage but the first."""
    answer, sys.stdout = sys.stdout, sys.stderr  # whatever a plugin prints is no answer
    asked = json.loads(sys.stdin.read())
    settings = RunSettings.model_validate(asked["settings"])
    name: str = asked["backbone"]

    from toxbench.benchmark.check import split_settings
    from toxbench.benchmark.plan import backbone_candidate
    from toxbench.data.source import open_source
    from toxbench.data.tokens import tokenise
    from toxbench.plugin.registry import Registry
    from toxbench.training.device import choose_device
    from toxbench.training.loop import Trainer
    from toxbench.training.weights import WeightsChoice, WeightsFinder

    clock = [time.perf_counter()]
    finder = WeightsFinder(WeightsChoice.parse(settings.weights))
    registry = Registry.discover(settings.plugins)
    candidate = backbone_candidate(registry.backbone(name), settings, finder)
    comments = open_source(settings.data, settings.columns, split_settings(settings)).comments
    backbone, weights, chosen = candidate.backbone, candidate.weights, candidate.settings
    folder = weights.folder
    if folder is None:
        raise PluginError(f"the weights of {name} are not here")
    clock.append(time.perf_counter())
    with TemporaryDirectory() as empty:  # what is in the cache would not be tokenised
        tokenizer = backbone.tokenizer(folder)
        tokens = tokenise(tokenizer, "", comments.texts, chosen.max_length, Path(empty))
    clock.append(time.perf_counter())
    module = (weights.build or backbone.build)(folder, len(comments.labels))
    device = choose_device(settings.device, chosen.precision)
    Trainer(module, backbone.head, tokens, comments.targets, chosen, device)
    clock.append(time.perf_counter())
    spent = [end - start for start, end in pairwise(clock)]
    print(json.dumps(dict(zip(STAGES[1:], spent, strict=True))), file=answer, flush=True)


if __name__ == "__main__":
    main()
