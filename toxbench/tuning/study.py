"""One study: committed trial records are what happened, Optuna's database is an index of them."""

import itertools
import json
import logging
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import json_to_distribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from pydantic import ValidationError

from toxbench.errors import StorageError
from toxbench.records import TrialRecord
from toxbench.store.lock import hold_lock
from toxbench.store.trials import SYNC_LOCK, TrialStore
from toxbench.tuning.storage import beating
from toxbench.util.atomic import make_folder, write_error


class Worker:
    """This process. While it lives it holds a lock that the kernel frees when it dies."""

    def __init__(self, folder: Path) -> None:
        self.uid = uuid.uuid4().hex
        self._folder = folder
        make_folder(folder)
        self._lock = FileLock(self._path(self.uid))
        try:
            self._lock.acquire(timeout=0)
        except OSError as error:
            raise write_error(folder, error) from error

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let go; after an error the lock's file stays, so that others see this worker gone."""
        self._lock.release()
        if kind is None:
            self._path(self.uid).unlink(missing_ok=True)

    def is_dead(self, uid: str) -> bool:
        """Whether another worker on this folder is known to be gone.

        False where that cannot be told: a worker on another folder is followed by heartbeats.
        """
        path = self._path(uid)
        if uid == self.uid or not path.is_file():
            return False
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        lock.release()
        return True

    def _path(self, uid: str) -> Path:
        return self._folder / f"{uid}.lock"


# User attributes of a trial in the database.
UID, WORKER, SLOT, RECORD = "uid", "worker", "slot", "record"
_POLL_SECONDS = 0.5
_UNSIGNED_SECONDS = 5.0
_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}

SampledTrial = tuple[Trial, int]  # a trial, and its slot, counted from 0
StopCriterion = Callable[[Sequence[TrialRecord]], bool]
Changed = Callable[[Sequence[TrialRecord]], None]


@dataclass
class SharedStudy:
    """A study that several workers may work on, and that survives the loss of any of them.

    Attributes:
        name: of the study in the database.
        storage: the database.
        store: the committed records.
        worker: this process.
        sampler: draws trials.
        pruner: ends bad ones.
    """

    name: str
    storage: RDBStorage
    store: TrialStore
    worker: Worker
    sampler: BaseSampler
    pruner: BasePruner

    def __post_init__(self) -> None:
        with _quiet_optuna():
            self._study = optuna.create_study(
                storage=self.storage,
                study_name=self.name,
                sampler=self.sampler,
                pruner=self.pruner,
                direction="maximize",
                load_if_exists=True,
            )
        self._first_seen: dict[str, float] = {}
        self._beats: dict[int, ExitStack] = {}

    def draw(
        self, wanted: int, enough: StopCriterion, changed: Changed
    ) -> Iterator[SampledTrial | None]:
        """Draw trials until ``wanted`` are finished, or ``enough`` of the finished ones.

        Each trial takes one of ``wanted`` slots, and a lost trial's slot is free again; a worker
        that began one too many gives it back. Each that is drawn has to be committed, or left to
        others. None: all that are wanted are at work, here or elsewhere.

        Args:
            wanted: finished trials, by all workers together.
            enough: whether to begin no further trial, by what is finished.
            changed: told of the finished trials, at first and after whatever happened.

        Raises:
            StorageError: a record cannot be read or written.
        """
        while True:
            records = self.sync()
            changed(records)
            if len(records) >= wanted or enough(records):
                return
            if len(records) + len(self._running()) >= wanted:
                yield None  # for the last ones of other workers, or their end
                continue
            drawn = self._one(wanted)
            if drawn is not None:
                yield drawn

    def commit(self, drawn: SampledTrial, record: TrialRecord) -> TrialRecord | None:
        """Sign and write the record of a trial; None where it was taken for lost meanwhile.

        Raises:
            StorageError: it cannot be written.
        """
        trial, slot = drawn
        try:
            frozen = self._study.get_trials(deepcopy=False)[trial.number]
            if frozen.state != TrialState.RUNNING:
                return None
            signed = record.model_copy(
                update={
                    "uid": frozen.user_attrs[UID],
                    "worker": self.worker.uid,
                    "plan_index": slot,
                    "system_attributes": _plain(frozen.system_attrs),
                }
            )
            self.store.write(signed)  # from here on the trial has happened
            self._tell(frozen, signed)
        except UpdateFinishedTrialError:
            return None
        finally:
            self.leave(drawn)
        return signed

    def leave(self, drawn: SampledTrial) -> None:
        """Go on with a trial no further: it is finished, or another worker has it."""
        beat = self._beats.pop(drawn[0].number, None)
        if beat is not None:
            beat.close()

    def close(self) -> None:
        """Leave every trial: what ends this worker leaves them running, for others to free."""
        for number in list(self._beats):
            self._beats.pop(number).close()

    def sync(self) -> list[TrialRecord]:
        """Bring records and database to the same state; return all records.

        What the database knows from workers on other machines becomes a record here; records that
        it does not know, because it is new, are added; a trial whose worker died after committing
        it is finished.
        """
        make_folder(self.store.folder)
        with hold_lock(self.store.folder / SYNC_LOCK):
            records = {record.uid: record for record in self.store.records()}
            trials = self._study.get_trials(deepcopy=False)
            for trial in trials:
                text = trial.user_attrs.get(RECORD)
                if text and trial.state.is_finished() and trial.user_attrs[UID] not in records:
                    record = _record(text)
                    self.store.write(record)
                    records[record.uid] = record
            known = {trial.user_attrs[UID]: trial for trial in trials if UID in trial.user_attrs}
            self._finish_committed(records, known)
            self._add(sorted((r for u, r in records.items() if u not in known),
                             key=lambda record: record.number), len(trials))  # fmt: skip
            self._free_lost()
        return sorted(records.values(), key=lambda record: (record.number, record.uid))

    def _one(self, wanted: int) -> SampledTrial | None:
        """Draw a trial and find its slot; None where others have all, or took it for lost."""
        beat = ExitStack()
        try:
            trial = self._ask()
            beat.enter_context(beating(self.storage, trial._trial_id))
            slot = self._free_slot(trial.number)
            if slot < wanted:
                trial.set_user_attr(SLOT, slot)
                self._beats[trial.number] = beat.pop_all()
                return trial, slot
            self._study.tell(trial.number, state=TrialState.FAIL)  # others are at work on them
        except UpdateFinishedTrialError:
            return None  # it was taken for lost meanwhile, and another worker has it
        finally:
            beat.close()
        return None

    def _ask(self) -> Trial:
        """Draw a trial, and sign it."""
        with _quiet_optuna(), warnings.catch_warnings():
            # Optuna's own loop would beat, but cannot tell the errors of a trial from its own.
            warnings.filterwarnings("ignore", message="Heartbeat of storage")
            trial = self._study.ask()
        trial.set_user_attr(WORKER, self.worker.uid)
        trial.set_user_attr(UID, f"{self.worker.uid}{trial.number:08x}")
        return trial

    def _tell(self, trial: FrozenTrial, record: TrialRecord) -> None:
        """Finish a running trial in the database as its record says."""
        self.storage.set_trial_user_attr(trial._trial_id, RECORD, record.model_dump_json())
        complete = record.value is not None
        state = None if complete else _STATES[record.state]
        self._study.tell(trial.number, record.value, state, skip_if_finished=True)

    def _free_slot(self, number: int) -> int:
        """Return the lowest slot that no earlier trial has, once all of those have chosen."""
        while True:
            earlier = self._study.get_trials(deepcopy=False)[:number]
            alive = [t for t in earlier if t.state == TrialState.RUNNING or RECORD in t.user_attrs]
            if all(SLOT in trial.user_attrs for trial in alive):
                break
            self._free_lost()
            time.sleep(_POLL_SECONDS / 10)
        taken = {trial.user_attrs[SLOT] for trial in alive}
        return next(slot for slot in itertools.count() if slot not in taken)

    def _running(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _finish_committed(
        self, records: dict[str, TrialRecord], known: dict[str, FrozenTrial]
    ) -> None:
        """Tell the database of trials whose worker died between committing and telling it."""
        for uid, trial in known.items():
            record = records.get(uid)
            if record and trial.state == TrialState.RUNNING and self._is_dead(trial):
                self._tell(trial, record)

    def _add(self, missing: Sequence[TrialRecord], count: int) -> None:
        """Add trials that the database does not know, under their own numbers where it is empty."""
        for record in missing:
            while count < record.number:
                # A trial of that number was lost, or is on another machine.
                self._study.add_trial(create_trial(state=TrialState.FAIL))
                count += 1
            self._study.add_trial(frozen_trial(record))
            count += 1

    def _free_lost(self) -> None:
        """Fail the running trials whose worker is gone, so that another one takes their place."""
        for trial in self._running():
            if self._is_dead(trial):
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._study)  # by heartbeats

    def _is_dead(self, trial: FrozenTrial) -> bool:
        """Whether a trial's worker is known to be gone.

        A trial is signed as soon as it is there, so one that stays unsigned has nobody; a worker
        that was only slow finds it taken for lost, and goes on with another.
        """
        worker = trial.user_attrs.get(WORKER)
        if worker is not None:
            return self.worker.is_dead(worker)
        first_seen = self._first_seen.setdefault(str(trial._trial_id), time.monotonic())
        return time.monotonic() - first_seen > _UNSIGNED_SECONDS


def _record(text: str) -> TrialRecord:
    """Read a record that another worker put into the database."""
    try:
        return TrialRecord.model_validate_json(text)
    except ValidationError as error:
        raise StorageError(
            "the database of studies holds a trial that cannot be read; was it written by another "
            "version of toxbench? use another --storage"
        ) from error


def frozen_trial(record: TrialRecord) -> FrozenTrial:
    """Make the trial again that a record was made of."""
    return create_trial(
        state=_STATES[record.state],
        value=record.value,
        params=dict(record.params),
        distributions={k: json_to_distribution(v) for k, v in record.distributions.items()},
        user_attrs={
            UID: record.uid,
            WORKER: record.worker,
            SLOT: record.plan_index,
            RECORD: record.model_dump_json(),
            **({"default": True} if record.is_default else {}),
        },
        system_attrs=dict(record.system_attributes),
        intermediate_values=dict(record.step_scores),
    )


def in_memory_study(records: Sequence[TrialRecord]) -> optuna.Study:
    """Make a study of records alone, for reports."""
    with _quiet_optuna():
        study = optuna.create_study(direction="maximize")
        study.add_trials([frozen_trial(record) for record in records])
    return study


def _plain(attributes: dict[str, object]) -> dict[str, object]:
    """Keep what JSON can hold."""
    kept: dict[str, object] = json.loads(json.dumps(attributes, default=str))
    return kept


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna's own log lines off the terminal: the same is said in our words."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
