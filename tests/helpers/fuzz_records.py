"""Edits of every field of every kind of stored record, in a results folder of a real run."""

import hashlib
import json
import random
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import write_table

import toxbench
from toxbench.errors import StorageError
from toxbench.evaluation.definitions import VERSIONS
from toxbench.ranking.cells import check_cell_shape
from toxbench.ranking.quoted import load_quoted
from toxbench.records import CellKey, TrialRecord, TunedSettings
from toxbench.store.cells import QUOTED, CellStore, find_store
from toxbench.store.files import FILE as ROWS
from toxbench.store.files import decode, encode, read_cell
from toxbench.store.manifest import FILE as MANIFEST
from toxbench.store.manifest import read_manifest
from toxbench.store.models import RECORD, ModelRecord
from toxbench.store.trials import TrialStore, read_trial, read_tuned, write_tuned
from toxbench.tuning.study import in_memory_study

DELETED = object()
OTHER_TYPES: tuple[Any, ...] = (None, True, "x", "", -1, 7, 0.5, [], {}, [["x"]], {"x": None})
EXTREMES: tuple[Any, ...] = (
    10**400, -(10**30), 2**63, 2**31, 1e308, -1e308, 5e-324, "\udc80", "\x1b[2J" * 9, "9" * 5000,
    [0] * 999, -0.0,
)  # fmt: skip
KINDS = {"deleted": (DELETED,), "another type": OTHER_TYPES, "extreme": EXTREMES}
Place = tuple[str | int, ...]  # keys and indices from the root of a record to a field


@dataclass(frozen=True)
class StoredKind:
    """A kind of stored record.

    Attributes:
        path: a file of this kind.
        decode: returns the record in a file's bytes, as parsed JSON.
        encode: returns the bytes of a changed record, with a right checksum where the kind has one;
            its second argument is the file's former content.
        load: reads the file as a command does.
    """

    path: Path
    decode: Callable[[bytes], Any]
    encode: Callable[[Any, bytes], bytes]
    load: Callable[[], object]

    @contextmanager
    def edited(self, content: Any) -> Iterator[None]:
        """Store a changed record while the context lasts."""
        original = self.path.read_bytes()
        self.path.write_bytes(self.encode(content, original))
        try:
            yield
        finally:
            self.path.write_bytes(original)

    def accepts(self, content: Any) -> bool:
        """Return whether a changed record is read without a `StorageError`."""
        with self.edited(content):
            try:
                self.load()
            except StorageError:
                return False
            return True


def make_results(folder: Path, checkpoint: Path) -> CellStore:
    """Run a tiny backbone and a baseline, and add a failure, quoted scores and a search."""
    quoted = folder / "quoted.toml"
    folder.mkdir(exist_ok=True)
    quoted.write_text('[[quoted]]\nname = "A"\nsource = "B"\nmicro_f1 = 0.5\n', encoding="utf-8")
    toxbench.run(
        write_table(folder / "table.csv"), backbones=["bert"], baselines=["always-negative"],
        weights=f"bert={checkpoint}", train={"epochs": 1, "max_length": 16},
        results=folder / "results", quoted=quoted, workers=1,
    )  # fmt: skip
    store = find_store(folder / "results")
    key = CellKey(candidate="bert", digest="0" * 12, seed=7)
    store.failures.write(key, "diverged", "the loss is NaN")
    _add_search(store)
    return store


def _add_search(store: CellStore) -> None:
    record = next(record for record in store.records() if record.kind == "backbone")
    study = f"bert-{record.key.digest}"
    trials = TrialStore(store.folder / "tuning" / study / "trials")
    bounds = '{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, '
    for number in range(4):
        trials.write(
            TrialRecord(
                study=study, uid=f"{number:032x}", number=number, state="complete", reason="",
                metric="micro_average_precision",
                is_default=False, params={"learning_rate": (number + 1) * 1e-4},
                distributions={"learning_rate": bounds + '"high": 0.01, "log": true}}'},
                settings=record.settings, seed=1, folds=(0,), value=number / 5,
                scores=(number / 5,), epoch_scores={1: 0.1}, epochs=1, seconds=1.5,
                thresholds={"0.5": (0.5,) * 3}, worker="w", finished_at="2026-01-02T03:04:05+00:00",
            )
        )  # fmt: skip
    tuned = TunedSettings(
        backbone="bert", protocol=record.fingerprint, finished_at="2026-01-02T03:04:05+00:00",
        weights=record.weights, train=record.settings, thresholds={"0.5": (0.5,) * 3},
        tuning={
            "study": study, "trials": 4, "pruned_trials": 0, "failed_trials": 0, "finalists": 1,
            "metric": "micro_average_precision", "score": 0.5, "default_won": False,
        },
    )  # fmt: skip
    write_tuned(trials.folder.with_name("tuned.toml"), tuned, (), {})


def stored_kinds(store: CellStore) -> dict[str, StoredKind]:
    """Return a file of each kind of stored record."""
    cell = next(path for path in store.paths() if path.name.startswith("bert"))
    (tuned,) = store.folder.glob("tuning/*/tuned.toml")
    trial = sorted(store.folder.glob("tuning/*/trials/*.json"))[1]
    (failure,) = store.failures.paths()
    (model,) = store.models.paths()
    folder = store.folder

    def load_cell() -> None:
        protocol, (record, tensors) = store.protocol(), read_cell(cell)
        check_cell_shape(protocol, record, tensors)
        if record.fingerprint != protocol.fingerprint or record.versions != VERSIONS:
            raise StorageError("commands refuse it, or compute its scores again")

    def trials() -> object:
        return in_memory_study([read_trial(trial)])

    return {
        "cell": StoredKind(cell, *_tensor_file("cell"), load_cell),
        "rows": StoredKind(folder / ROWS, *_tensor_file("rows"), store.rows),
        "protocol": StoredKind(store.protocol_path, json.loads, _plain, load_cell),
        "failure": StoredKind(failure, json.loads, _plain, store.failures.records),
        "manifest": StoredKind(
            folder / MANIFEST, json.loads, _plain, lambda: read_manifest(folder)
        ),
        "model": StoredKind(model / RECORD, json.loads, _signed_model, store.models.records),
        "trial": StoredKind(trial, _signed_content, _signed, trials),
        "tuned": StoredKind(tuned, _toml_content, _toml, lambda: read_tuned(tuned)),
        "quoted": StoredKind(folder / QUOTED, _toml_content, _toml, lambda: load_quoted(store)),
    }


def edits(content: Any, rng: random.Random) -> Iterator[tuple[str, Any]]:
    """Yield a description and a changed copy for each field and each kind of edit."""
    for place in places(content):
        for kind, values in KINDS.items():
            value = rng.choice(values)
            name = "/".join(map(str, place))
            yield f"{name} {kind} {str(value)[:20]!r}", edit(content, place, value)


def with_accepted_edits(kind: StoredKind, rng: random.Random) -> tuple[Any, int]:
    """Edit every field once, in random order; keep the edits that are accepted, and count them."""
    content = kind.decode(kind.path.read_bytes())
    accepted = 0
    for place in rng.sample(all_places := list(places(content)), len(all_places)):
        value = rng.choice(KINDS[rng.choice(list(KINDS))])
        with suppress(LookupError, TypeError):  # an edit before this one removed the field
            changed = edit(content, place, value)
            if kind.accepts(changed):
                content, accepted = changed, accepted + 1
    return content, accepted


def places(content: Any, start: Place = ()) -> Iterator[Place]:
    """Yield the path of every field; of a list, only those of its first and last item."""
    keys: list[str | int] = []
    if isinstance(content, dict):
        keys = list(content)
    elif isinstance(content, list):
        keys = sorted({0, len(content) - 1}) if content else []
    for key in keys:
        yield (*start, key)
        yield from places(content[key], (*start, key))


def edit(content: Any, place: Place, value: Any) -> Any:
    """Return a copy with another value at a place."""
    changed = deepcopy(content)
    parent = changed
    for key in place[:-1]:
        parent = parent[key]
    if value is DELETED:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    return changed


def _tensor_file(kind: str) -> tuple[Callable[[bytes], Any], Callable[[Any, bytes], bytes]]:
    def write(content: Any, data: bytes) -> bytes:
        return encode(kind, json.dumps(content), decode(kind, data)[1])

    return lambda data: json.loads(decode(kind, data)[0]), write


def _plain(content: Any, _: bytes) -> bytes:
    return json.dumps(content).encode("ascii")


def _signed(content: Any, _: bytes) -> bytes:
    text = json.dumps(content)
    return _plain({"sha256": hashlib.sha256(text.encode("ascii")).hexdigest(), "record": text}, b"")


def _signed_content(data: bytes) -> Any:
    return json.loads(json.loads(data)["record"])


def _signed_model(content: Any, _: bytes) -> bytes:
    with suppress(ValueError):
        return ModelRecord.model_validate(content).with_checksum().model_dump_json().encode("utf-8")
    return _plain(content, b"")


def _toml_content(data: bytes) -> Any:
    return tomllib.loads(data.decode("utf-8"))


def _toml(content: Any, _: bytes) -> bytes:
    return "\n".join(f"{json.dumps(k)} = {_inline(v)}" for k, v in content.items()).encode("utf-8")


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(k)} = {_inline(v)}' for k, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    return json.dumps(value)
