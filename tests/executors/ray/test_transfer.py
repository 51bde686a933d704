"""Folders and environment variables that are sent to the nodes of a Ray cluster."""

import json
from pathlib import Path

import pytest

from toxbench.errors import StorageError
from toxbench.executors.ray.executor import without_secrets
from toxbench.executors.ray.messages import find_folder, read_files, write_files
from toxbench.executors.ray.task import task_environ
from toxbench.util.content import complete_folder, hash_files, list_files


def send(folder: Path, cache: Path, damaged: str | None = None) -> Path:
    """Write the files of a folder to the cache, with an additional byte in a damaged file."""
    contents = {name: path.read_bytes() for name, path in list_files(folder).items()}
    if damaged is not None:
        contents[damaged] += b"!"
    return complete_folder(cache, hash_files(folder), contents.__getitem__)


def test_missing_weights_are_cached(checkpoint: Path, tmp_path: Path) -> None:
    hashes, cache, missing = hash_files(checkpoint), tmp_path / "cache", tmp_path / "missing"
    assert find_folder(checkpoint, hashes, cache) == checkpoint
    assert find_folder(missing, hashes, cache) is None
    cached = send(checkpoint, cache)
    assert find_folder(missing, hashes, cache) == cached
    assert {p.name: p.read_bytes() for p in cached.iterdir()} == {
        p.name: p.read_bytes() for p in checkpoint.iterdir()
    }


def test_changed_weights_are_not_used(checkpoint: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cached = send(checkpoint, cache)
    (cached / "config.json").write_text("{}")
    assert find_folder(cached, hash_files(checkpoint), cache) is None
    assert hash_files(send(checkpoint, cache)) == hash_files(checkpoint)  # written again


def test_damaged_files_are_not_cached(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="arrived damaged"):
        send(checkpoint, tmp_path / "cache", damaged="config.json")
    assert list(tmp_path.rglob("config.json")) == []


def test_pickles_are_not_sent(tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "config.json", ".hidden"):
        (tmp_path / name).touch()
    assert list(list_files(tmp_path)) == ["config.json"]


def test_modules_of_sentence_transformers_are_sent(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    for name in ("1_Pooling", "2_Dense", "onnx"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(name)
    paths = ["", "1_Pooling", "2_Dense", "../encoder", "3_Missing"]
    (folder / "modules.json").write_text(json.dumps([{"path": path} for path in paths]))
    names = ["1_Pooling/config.json", "2_Dense/config.json", "modules.json"]
    assert list(list_files(folder)) == names
    sent, before = send(folder, tmp_path / "cache"), hash_files(folder)
    assert hash_files(sent) == before
    (folder / "1_Pooling" / "config.json").write_text("changed")
    assert hash_files(folder) != before


def test_files_outside_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "node" / ".a.tmp").mkdir(parents=True)
    (tmp_path / "node" / ".a.tmp" / "x").write_bytes(b"1")
    write_files(read_files(tmp_path / "node"), tmp_path / "results")
    assert (tmp_path / "results" / ".a.tmp" / "x").read_bytes() == b"1"
    with pytest.raises(StorageError, match="is outside of"):
        write_files({"../outside": b""}, tmp_path / "results")


def test_node_variables_take_precedence() -> None:
    main = {"A": "main", "B": "main", "LD_PRELOAD": "x", "TOXBENCH_CACHE": "/c", "HF_TOKEN": "t"}
    assert task_environ(main, {"B": "node"}) == {"A": "main", "B": "node"}


def test_secrets_are_not_sent() -> None:
    secret = ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "DB_PASSWORD", "API_KEY"]
    public = ["OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "KEYBOARD", "MARK"]
    assert set(without_secrets(dict.fromkeys([*secret, *public], "x"))) == set(public)
