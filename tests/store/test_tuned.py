"""Stored tuned settings: a TOML file that people read and edit and that runs use."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from toxbench.errors import StorageError
from toxbench.records import TunedSettings, TuningRecord, WeightsRecord
from toxbench.settings import TrainSettings
from toxbench.store.trials import TUNED_FILE, TUNING, find_tuned, read_tuned, write_tuned

PROTOCOL = "f" * 64
WEIGHTS = WeightsRecord(source="stand-in", label="stand-in: all-MiniLM-L6-v2", identity="1/bert")
TUNING_RECORD = TuningRecord(
    study="bert-0123456789ab", trials=20, pruned_trials=7, failed_trials=1, finalists=3,
    metric="headline", score=2 / 3, default_score=1 / 3, default_won=False,
)  # fmt: skip


def make_tuned(**changes: Any) -> TunedSettings:
    fields: dict[str, Any] = {
        "backbone": "bert",
        "protocol": PROTOCOL,
        "finished_at": "2026-01-02T03:04:05+00:00",
        "weights": WEIGHTS,
        "tuning": TUNING_RECORD,
        "train": TrainSettings(learning_rate=1e-4 / 3, epochs=7, loss="focal", dropout=0.15),
        "thresholds": {"0.5": (0.5,) * 3, "global": (1 / 3,) * 3, "per-label": (0.1, 1 / 7, 0.9)},
    }
    return TunedSettings(**(fields | changes))


def write(
    path: Path, tuned: TunedSettings | None = None, *remarks: str, **origins: str
) -> TunedSettings:
    tuned = tuned or make_tuned()
    write_tuned(path, tuned, remarks, origins)
    return tuned


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study" / TUNED_FILE


# --- round trips


def thresholds(labels: int) -> dict[str, tuple[float, ...]]:
    return {rule: tuple((i + 1) / (labels + 1) for i in range(labels))
            for rule in ("0.5", "global", "per-label")}  # fmt: skip


ROUND_TRIPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "default_failed": {"tuning": TUNING_RECORD.model_copy(update={"default_score": None})},
    "dropout_unset": {"train": TrainSettings(dropout=None)},
    "all_defaults": {"train": TrainSettings()},
    "one_label": {"thresholds": thresholds(1)},
    "seven_labels": {"thresholds": thresholds(7)},
    "many_labels": {"thresholds": thresholds(201)},
    "half_alone": {"thresholds": {"0.5": (0.5, 0.5)}},
    "tiny": {"train": TrainSettings(learning_rate=1e-300, weight_decay=0.0)},
    "large": {"train": TrainSettings(learning_rate=1e300, max_length=2**40)},
    "quotes": {"weights": WEIGHTS.model_copy(update={"label": 'folder "x"\\y\'z'})},
    "accents": {"weights": WEIGHTS.model_copy(update={"label": "folder tóxico 毒 №"})},
    "emoji": {"weights": WEIGHTS.model_copy(update={"label": "folder 🤬"})},
    "control": {"weights": WEIGHTS.model_copy(update={"label": "a\x00\x1b[31m\x7f\r\n\tb\u2028"})},
    "toml_inside": {"weights": WEIGHTS.model_copy(update={"label": 'x"\n[train]\nepochs = 99'})},
}


@pytest.mark.parametrize("changes", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_tuned_settings_are_read_unchanged(path: Path, changes: dict[str, Any]) -> None:
    written = write(path, make_tuned(**changes), "a remark", epochs="an origin")
    assert read_tuned(path) == written
    assert read_tuned(path).model_dump_json() == written.model_dump_json()


def test_equal_settings_give_equal_bytes(path: Path) -> None:
    write(path, None, "a remark", epochs="searched 2:8; default 4")
    first = path.read_bytes()
    write(path, None, "a remark", epochs="searched 2:8; default 4")
    assert path.read_bytes() == first


# --- the format


def test_the_file_has_a_table_per_part(path: Path) -> None:
    tuned = write(path)
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    assert (content["backbone"], content["protocol"]) == ("bert", "f" * 64)
    assert content["weights"] == WEIGHTS.model_dump()
    assert content["train"] == tuned.train.model_dump()
    assert content["thresholds"]["per-label"] == [0.1, 1 / 7, 0.9]


def test_remarks_and_origins_are_comments(path: Path) -> None:
    write(path, None, "Written by toxbench tune.", "Score: 0.5", epochs="searched 2:8; default 4")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["# Written by toxbench tune.", "# Score: 0.5"]
    assert "epochs = 7  # searched 2:8; default 4" in lines
    assert "batch_size = 16" in lines
    assert [line for line in lines if line.startswith("epochs")] == [
        "epochs = 7  # searched 2:8; default 4"
    ]


def test_origins_apply_only_to_training_settings(path: Path) -> None:
    write(path, None, trials="of the wrong table")
    assert "wrong table" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ['quote "x"', "tóxico 毒", "[train]", "a # b", "x = 'y'"])
def test_a_comment_may_contain_toml_syntax(path: Path, text: str) -> None:
    written = write(path, None, text, epochs=text)
    assert read_tuned(path) == written


@pytest.mark.parametrize("text", ["a\nepochs = 99", "a\r\nb", "\x00", "\x1b[31m", "\x7f"])
def test_a_comment_stays_on_its_line(path: Path, text: str) -> None:
    written = write(path, None, text, epochs=text)
    assert read_tuned(path) == written


# --- edited by hand


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_an_edited_value_is_read(path: Path) -> None:
    before = write(path, None, epochs="searched 2:8; default 4")
    edit(path, "epochs = 7", "epochs = 5")
    edit(path, 'loss = "focal"', "loss = 'bce'  # mine")
    edit(path, "dropout = 0.15\n", "")
    train = before.train.model_copy(update={"epochs": 5, "loss": "bce", "dropout": None})
    assert read_tuned(path) == before.model_copy(update={"train": train})


EDITS = {
    "out_of_range": ("epochs = 7", "epochs = 0"),
    "not_whole": ("epochs = 7", "epochs = 7.5"),
    "no_such_loss": ('loss = "focal"', 'loss = "hinge"'),
    "unknown_setting": ("epochs = 7", "epochs = 7\nseed = 1"),
    "misspelled_table": ("[train]", "[training]"),
    "not_a_number": ("score = 0.6", "score = nan #"),
    "infinite": ("learning_rate = 3", "learning_rate = inf #"),
    "twice": ("epochs = 7", "epochs = 7\nepochs = 8"),
    "no_backbone": ('backbone = "bert"\n', ""),
    "unclosed": ('"bert"', '"bert'),
}


@pytest.mark.parametrize(("old", "new"), EDITS.values(), ids=EDITS)
def test_an_invalid_edit_is_refused(path: Path, old: str, new: str) -> None:
    write(path)
    edit(path, old, new)
    with pytest.raises(StorageError, match=re.escape(str(path))) as caught:
        read_tuned(path)
    assert "\n" not in str(caught.value)


# --- damage


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\xff\xfe", b"[train]", b"= 1"])
def test_a_damaged_file_is_refused(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StorageError, match=re.escape(str(path))) as caught:
        read_tuned(path)
    assert caught.value.exit_code == 6


def test_a_file_without_all_tables_is_refused(path: Path) -> None:
    write(path)
    content = path.read_bytes()
    last_table = content.index(b"[thresholds]")
    for end in range(0, last_table, 37):
        path.write_bytes(content[:end])
        with pytest.raises(StorageError):
            read_tuned(path)


def test_a_missing_file_is_refused(path: Path) -> None:
    with pytest.raises(StorageError):
        read_tuned(path)
    path.mkdir(parents=True)
    with pytest.raises(StorageError):
        read_tuned(path)


def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        write(tmp_path / "file" / TUNED_FILE)


# --- search


def write_study(folder: Path, study: str, **changes: Any) -> TunedSettings:
    return write(folder / TUNING / study / TUNED_FILE, make_tuned(**changes))


def test_an_untuned_protocol_has_no_settings(tmp_path: Path) -> None:
    assert find_tuned(tmp_path, PROTOCOL, "bert", WEIGHTS.identity) is None
    (tmp_path / TUNING / "bert-1").mkdir(parents=True)
    assert find_tuned(tmp_path, PROTOCOL, "bert", WEIGHTS.identity) is None


def test_settings_are_selected_by_backbone_and_weights(tmp_path: Path) -> None:
    larger_weights = WEIGHTS.model_copy(update={"identity": "2/bert"})
    bert = write_study(tmp_path, "bert-1")
    larger = write_study(tmp_path, "bert-2", weights=larger_weights)
    roberta = write_study(tmp_path, "roberta-1", backbone="roberta")
    assert find_tuned(tmp_path, PROTOCOL, "bert", "1/bert") == bert
    assert find_tuned(tmp_path, PROTOCOL, "bert", "2/bert") == larger
    assert find_tuned(tmp_path, PROTOCOL, "roberta", "1/bert") == roberta
    assert find_tuned(tmp_path, PROTOCOL, "roberta", "2/bert") is None
    assert find_tuned(tmp_path, PROTOCOL, "distilbert", "1/bert") is None
    assert find_tuned(tmp_path, PROTOCOL, "bert", "") is None
    assert find_tuned(tmp_path, "e" * 64, "bert", "1/bert") is None


@pytest.mark.parametrize("latest", ["a", "b", "c"])
def test_the_latest_search_is_used(tmp_path: Path, latest: str) -> None:
    for study in "abc":
        day = 9 if study == latest else 2
        write_study(tmp_path, study, finished_at=f"2026-01-{day:02}T03:04:05+00:00")
    tuned = find_tuned(tmp_path, PROTOCOL, "bert", WEIGHTS.identity)
    assert tuned is not None
    assert tuned == read_tuned(tmp_path / TUNING / latest / TUNED_FILE)


def test_the_label_of_weights_is_ignored(tmp_path: Path) -> None:
    tuned = write_study(tmp_path, "a", weights=WEIGHTS.model_copy(update={"label": "folder moved"}))
    assert find_tuned(tmp_path, PROTOCOL, "bert", WEIGHTS.identity) == tuned


def test_a_damaged_file_is_not_skipped(tmp_path: Path) -> None:
    write_study(tmp_path, "a")
    write_study(tmp_path, "b")
    broken = tmp_path / TUNING / "b" / TUNED_FILE
    broken.write_bytes(b"epochs = ")
    with pytest.raises(StorageError, match=re.escape(str(broken))):
        find_tuned(tmp_path, PROTOCOL, "bert", WEIGHTS.identity)
