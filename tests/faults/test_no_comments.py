"""No message, warning or exception holds a text of the table, whatever is given in its place."""

import inspect
import json
import traceback
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import toxbench
from toxbench.cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.faults(46)]
MARK = "whispered"
TEXTS = [MARK, *(f"{MARK} {row} among many other words" for row in range(19))]
FRAME = pd.DataFrame({"id": range(20), "text": TEXTS, "IsA": [0, 1] * 10})
VALUES = {
    "frame": FRAME[["text"]], "column": FRAME["text"][1:], "texts": TEXTS[1:], "text": TEXTS[1],
    "mapping": {TEXTS[1]: TEXTS[2]}, "list of mappings": [{"text": text} for text in TEXTS],
}  # fmt: skip
PATHS = {"data", "results", "config", "quoted", "path"}  # a text there is the name of a file


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    FRAME.to_csv("comments.csv", index=False)
    return tmp_path / "comments.csv"


def refuse(function: Callable[..., object], *arguments: object, **keywords: object) -> None:
    """Call a function that raises; the traceback of all chained exceptions has no mark."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of any type
        function(*arguments, **keywords)
    assert MARK not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("function", [toxbench.run, toxbench.tune], ids=["run", "tune"])
@pytest.mark.parametrize("kind", VALUES)
def test_arguments_are_not_quoted(table: Path, kind: str, function: Callable[..., object]) -> None:
    for name in inspect.signature(function).parameters.keys() - {"progress"}:
        if name not in PATHS or kind not in {"text", "texts"}:
            keywords = {"data": table, "backbones": [], "results": "results", name: VALUES[kind]}
            refuse(function, **keywords)
    for group in ("columns", "train", "split"):
        for name in ("text_column", "labels", "epochs", "split", "split_column"):
            refuse(function, **{"data": table, "backbones": [], group: {name: VALUES[kind]}})


def test_arguments_of_stored_results_are_not_quoted(table: Path) -> None:
    toxbench.run(table, backbones=[], plugins=[])
    for kind, value in VALUES.items():
        if kind != "text":
            refuse(toxbench.leaderboard, value)
        refuse(toxbench.compare, "results", value, value)
        for name in ("thresholds", "metric", "without", "columns", "split"):
            refuse(toxbench.rescore, "results", data=table, **{name: value})
        for name in ("comments", "backbone", "thresholds", "device", "plugins"):
            refuse(toxbench.predict, "results", **{"comments": ["x"], name: value})


LINES = "".join(f"{row},{text},{row % 2}\n" for row, text in enumerate(TEXTS))
HEADER = "id,text,IsA\n"
FILES: dict[str, str | bytes] = {
    "no-header.csv": LINES,
    "no-labels.csv": "text\n" + "\n".join(TEXTS),
    "one-text-a-line.csv": "\n".join(TEXTS[1:]),
    "semicolons.csv": f"{HEADER}{LINES}7,{MARK}\n".replace(",", ";"),
    "short.csv": f"{HEADER}{LINES}7,{MARK}\n",
    "quote.csv": f'{HEADER}{LINES}7,"{MARK} x,1\n',
    "utf16.csv": (HEADER + LINES).encode("utf-16"),
    "labels.csv": f"{HEADER}{LINES}27,x,{TEXTS[1]}\n",
    "ids.csv": f"{HEADER}{LINES}{MARK},x,1\n{MARK},y,1\n{TEXTS[1]},x,1\n{TEXTS[1]},y,1\n",
    "blank.csv": f"{HEADER}{LINES}21,,1\n",
    "broken.jsonl": f'{{"text": "{MARK}"\n',
    "keys.jsonl": "".join(json.dumps({text: 1}) + "\n" for text in TEXTS[1:]),
    "twice.jsonl": f'{{"{MARK} a b c": 1, "{MARK} a b c": 2}}\n',
    "surrogate.jsonl": f'{{"text": "{MARK} \\ud83d", "IsA": 1}}\n',
    "csv.parquet": HEADER + LINES,
    "keys.json": json.dumps({text: text for text in TEXTS[1:]}),
    "split.json": "",
}  # fmt: skip
WRONG = [
    *(["data", "show", name] for name in FILES),
    *(["predict", "--input", name] for name in ("no-header.csv", "short.csv", "quote.csv")),
    ["data", "check", "comments.csv", "--labels", "text"],
    ["data", "check", "comments.csv", "--labels", "IsA,text"],
    ["data", "check", "ids.csv", "--id-column", "text"],
    ["data", "show", "comments.csv", "--text-column", "id", "--labels-column", "text"],
    ["data", "check", "comments.csv", "--split-column", "text"],
    *(["run", "comments.csv", "--dry-run", "--backbones", "none", option, name]
      for option in ("--split-file", "--config", "--quoted")
      for name in ("comments.csv", "keys.json", "split.json")),
    ["tune", "comments.csv", "--space", "comments.csv"],
]  # fmt: skip


def test_files_are_not_quoted(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in FILES.items():
        data = content.encode("utf-8") if isinstance(content, str) else content
        Path(name).write_bytes(data)
    toxbench.run(table, backbones=[], plugins=[], split={"split_file": "made.json"})
    split = json.loads(Path("made.json").read_text(encoding="utf-8"))
    split["folds"][0]["train"] += TEXTS
    split["folds"][0][TEXTS[1]] = TEXTS
    Path("split.json").write_text(json.dumps(split), encoding="utf-8")
    capsys.readouterr()
    for words in WRONG:
        with pytest.raises(SystemExit) as stop:
            main([*words, "--debug"])
        output = capsys.readouterr()
        assert stop.value.code in {2, 3, 6}, (words, output.err)
        assert MARK not in output.out + output.err, words
