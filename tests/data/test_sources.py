"""Tables from several files, from the Hub and from memory."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from support import write_table

import toxbench
from toxbench.data.load import SplitDataset, load_dataset
from toxbench.data.protocol import Protocol
from toxbench.data.sources import read_source
from toxbench.data.table import read_comments
from toxbench.errors import DataError, SettingsError, TryAgainError
from toxbench.settings import ColumnSettings, SplitSettings
from toxbench.store.cells import find_store

SETS = [["rude", "kind"], [], ["kind"], ["rude"]] * 10


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    return pd.read_csv(write_table(tmp_path / "made.csv"))


def to_polars(frame: pd.DataFrame) -> object:
    polars = pytest.importorskip("polars")
    return polars.DataFrame({name: frame[name].tolist() for name in frame})


def to_dataset(frame: pd.DataFrame) -> object:
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_pandas(pd.concat([frame[:5], frame]), preserve_index=False)
    return whole.select(range(5, 5 + len(frame)))  # its Arrow table has more rows


CARRIERS: Mapping[str, Callable[[pd.DataFrame], object]] = {
    "DataFrame": lambda frame: frame,
    "DataFrame of floats": lambda frame: frame.astype({"IsRude": float}),
    "Table": lambda frame: pa.table(frame),
    "RecordBatchReader": lambda frame: pa.table(frame).to_reader(),
    "polars": to_polars,
    "Dataset": to_dataset,
}


def fingerprint(source: Any, columns: ColumnSettings | None = None) -> str:
    return Protocol(read_comments(source, columns), ()).data_fingerprint


@pytest.mark.parametrize("carrier", CARRIERS)
def test_every_carrier_has_the_same_fingerprint(
    frame: pd.DataFrame, tmp_path: Path, carrier: str
) -> None:
    value = CARRIERS[carrier](frame)
    assert fingerprint(value) == fingerprint(tmp_path / "made.csv")


@pytest.mark.parametrize("carrier", [name for name in CARRIERS if "floats" not in name])
def test_every_carrier_has_the_same_label_sets(tmp_path: Path, carrier: str) -> None:
    frame = pd.DataFrame({"text": [f"text {row}" for row in range(40)], "labels": SETS})
    frame.to_csv(tmp_path / "sets.csv", index=False)
    assert fingerprint(CARRIERS[carrier](frame)) == fingerprint(tmp_path / "sets.csv")


def test_a_frame_runs_as_its_file_does(frame: pd.DataFrame, tmp_path: Path) -> None:
    options: dict[str, Any] = {"backbones": [], "baselines": ["always-negative"]}
    toxbench.run(frame, results=tmp_path / "memory", **options)
    toxbench.run(tmp_path / "made.csv", results=tmp_path / "file", **options)
    memory, file = (find_store(tmp_path / name).protocol() for name in ("memory", "file"))
    assert memory.fingerprint == file.fingerprint
    assert not memory.synthetic
    rescored = toxbench.rescore(tmp_path / "file", data=frame)
    assert rescored["candidate"].tolist() == ["always-negative"]
    with pytest.raises(DataError, match="not the table of these results"):
        toxbench.rescore(tmp_path / "file", data=frame[:50])


class Stream:
    """A data set of the library datasets that is not loaded."""

    def with_format(self, name: str) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("value", [5, [1, 2], {"text": ["secret"]}, {}, [], object(), Stream()])
def test_other_objects_are_refused(value: object) -> None:
    with pytest.raises(SettingsError, match="a table is a path, several paths, a pandas") as caught:
        toxbench.run(value)
    assert "secret" not in str(caught.value)


def test_categories_become_text() -> None:
    polars = pytest.importorskip("polars")
    groups = polars.Series(["u", "v", None], dtype=polars.Categorical)
    table = polars.DataFrame({"text": ["x", "y", "z"], "group": groups, "IsA": [True, False, True]})
    for value in (table, pa.table(table).to_pandas()):
        assert read_comments(value).groups == ("u", "v", None)


def test_values_of_several_types_become_text() -> None:
    frame = pd.DataFrame({"id": [1, "b", None, "d"], "text": list("wxyz"), "IsA": [1, 0, 1, 0]})
    comments = read_comments(frame[frame["id"].notna()])
    assert (comments.name, comments.ids) == ("DataFrame", ("1", "b", "d"))
    with pytest.raises(DataError, match=r"^DataFrame: row 3, column 'id': the id is blank"):
        read_comments(frame)


# --- several files


def test_several_files_are_one_table(frame: pd.DataFrame, tmp_path: Path) -> None:
    parts = [tmp_path / "part-1.csv", tmp_path / "part-2.parquet"]
    frame[:20].to_csv(parts[0], index=False)
    frame[20:].to_parquet(parts[1], index=False)
    whole = fingerprint(tmp_path / "made.csv")
    assert fingerprint(tuple(parts)) == fingerprint(tmp_path / "part-*") == whole
    assert read_comments(tuple(parts)).name == "part-1.csv and 1 more"
    with pytest.raises(DataError, match=r"none-\*: no file matches this pattern"):
        read_comments(tmp_path / "none-*")


def test_commands_take_several_files(
    cli: Callable[..., Any], frame: pd.DataFrame, tmp_path: Path
) -> None:
    frame[:20].to_csv(tmp_path / "a.csv", index=False)
    frame[20:].to_csv(tmp_path / "b.csv", index=False)
    for words in (["a.csv", "b.csv"], ["--data", "a.csv", "--data", "b.csv"], ["[ab].csv"]):
        assert ": 60 rows, 3 labels" in cli("data", "show", *words).stdout


# --- parts


def load(source: Any, explicit: frozenset[str] = frozenset(), **split: Any) -> SplitDataset:
    return load_dataset(source, ColumnSettings(), SplitSettings(**split), explicit)


def make_parts(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {"train": frame[:40], "validation": frame[40:45], "test": frame[45:]}


@pytest.mark.parametrize("kind", ["frames", "DatasetDict"])
def test_parts_are_the_official_split(frame: pd.DataFrame, kind: str) -> None:
    parts: Any = make_parts(frame)
    if kind == "DatasetDict":
        datasets = pytest.importorskip("datasets")
        parts = datasets.DatasetDict({name: to_dataset(rows) for name, rows in parts.items()})
    source = load(parts)
    (fold,) = source.folds
    assert [len(rows) for rows in (fold.train, fold.validation, fold.test)] == [40, 5, 15]
    assert fold.test.tolist() == list(range(45, 60))
    assert source.comments.ids == tuple(frame["id"])
    assert source.origin == "official, by column 'official part'"
    with pytest.raises(SettingsError, match="has an official split; leave out folds"):
        load(parts, frozenset({"folds"}), folds=3)


def test_one_part_is_an_ordinary_table(frame: pd.DataFrame) -> None:
    assert load({"anything": frame}).origin == "random"
    with pytest.raises(DataError, match="column 'official part' has no test row"):
        load({"train": frame[:40], "dev": frame[40:]})
    with pytest.raises(DataError, match="no part is called train, validation or test"):
        load({"first": frame[:40], "second": frame[40:]})


# --- the Hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """Replace the library datasets; return the arguments of each call."""
    calls: list[tuple[str, ...]] = []

    def load_dataset(*arguments: str) -> object:
        calls.append(arguments)
        if arguments == ("go_emotions", "simplified"):
            return make_parts(frame)
        if "offline" in arguments[0]:
            raise ConnectionError("no network")
        raise FileNotFoundError("no such data set")

    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def test_a_data_set_of_the_hub_is_loaded(hub: list[tuple[str, ...]]) -> None:
    source = load(Path("hf:go_emotions/simplified"))
    assert hub == [("go_emotions/simplified",), ("go_emotions", "simplified")]
    assert source.comments.name == "go_emotions/simplified"
    assert len(source.folds[0].test) == 15


def test_errors_of_the_hub_are_explained(
    hub: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="hf:owner/name/config: not a data set of the Hub"):
        read_source(Path("hf:owner/name/config"))
    assert hub == [("owner/name", "config")]
    with pytest.raises(TryAgainError, match="the Hub cannot be reached: no network"):
        read_source(Path("hf:offline"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SettingsError, match=r'first: pip install "toxbench\[datasets\]"'):
        read_source(Path("hf:name"))
