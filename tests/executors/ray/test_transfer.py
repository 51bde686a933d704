"""Folders that go to another machine: by their hashes, whole or not at all."""

from pathlib import Path

import pytest

from toxbench.errors import StorageError
from toxbench.executors.ray.executor import without_secrets
from toxbench.executors.ray.task import environ_there
from toxbench.executors.ray.transfer import (
    files_of,
    folder_here,
    hashes,
    keep_sent,
    put_files,
    take_files,
)


def send(folder: Path, cache: Path, damage: str | None = None) -> Path:
    content = {path.name: path.read_bytes() for path in files_of(folder)}
    if damage is not None:
        content[damage] += b"!"
    return keep_sent(hashes(folder), content.__getitem__, cache)


def test_weights_that_are_not_here_are_kept_as_they_were_sent(
    checkpoint: Path, tmp_path: Path
) -> None:
    wanted, cache, away = hashes(checkpoint), tmp_path / "cache", tmp_path / "away"
    assert folder_here(checkpoint, wanted, cache) == checkpoint
    assert folder_here(away, wanted, cache) is None
    kept = send(checkpoint, cache)
    assert folder_here(away, wanted, cache) == kept
    assert {p.name: p.read_bytes() for p in kept.iterdir()} == {
        p.name: p.read_bytes() for p in checkpoint.iterdir()
    }


def test_other_weights_in_a_folder_of_the_same_name_are_not_used(
    checkpoint: Path, tmp_path: Path
) -> None:
    kept = send(checkpoint, tmp_path / "cache")
    (kept / "config.json").write_text("{}")
    assert folder_here(kept, hashes(checkpoint), tmp_path / "cache") is None
    assert hashes(send(checkpoint, tmp_path / "cache")) == hashes(checkpoint)  # made again


def test_what_arrives_damaged_is_not_kept(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="arrived damaged"):
        send(checkpoint, tmp_path / "cache", damage="config.json")
    assert list((tmp_path / "cache" / "sent").iterdir()) == []


def test_pickles_are_never_sent(tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "config.json", ".hidden"):
        (tmp_path / name).touch()
    assert [path.name for path in files_of(tmp_path)] == ["config.json"]


def test_files_come_back_into_their_folder_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "one" / ".a.tmp").mkdir(parents=True)
    (tmp_path / "one" / ".a.tmp" / "x").write_bytes(b"1")
    put_files(take_files(tmp_path / "one"), tmp_path / "two")
    assert (tmp_path / "two" / ".a.tmp" / "x").read_bytes() == b"1"
    with pytest.raises(StorageError, match="not its own"):
        put_files({"../three": b""}, tmp_path / "two")


def test_a_node_keeps_what_names_its_places() -> None:
    asked = {"A": "asked", "B": "asked", "LD_PRELOAD": "x", "TOXBENCH_CACHE": "/c", "HF_TOKEN": "t"}
    assert environ_there(asked, {"B": "own"}) == {"A": "asked", "B": "own"}


def test_secrets_do_not_travel() -> None:
    secret = ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "DB_PASSWORD", "API_KEY"]
    plain = ["OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "KEYBOARD", "MARK"]
    assert set(without_secrets(dict.fromkeys([*secret, *plain], "x"))) == set(plain)
