"""A study that several workers share: committed trial records, indexed by Optuna's database."""

import itertools
import json
import logging
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import json_to_distribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from pydantic import ValidationError
from sqlalchemy import text

from toxbench.errors import StorageError
from toxbench.records import TrialRecord
from toxbench.settings import SearchCost
from toxbench.store.folder import hold_lock
from toxbench.store.trials import SYNC_LOCK, TrialStore
from toxbench.tuning.storage import send_heartbeats, silence_logger
from toxbench.util.atomic import make_folder, write_error

# User attributes of a trial in the database.
UID, WORKER, SLOT, RECORD = "uid", "worker", "slot", "record"
# What an attempt at a trial leaves in the database, except its number, uid and slot.
_RESET = tuple(
    text(f"DELETE FROM {table} WHERE trial_id = :trial_id")  # noqa: S608 - constants
    for table in (
        "trial_params", "trial_intermediate_values", "trial_system_attributes", "trial_heartbeats",
    )
)  # fmt: skip
_UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)
_POLL_SECONDS = 0.05
_UNSIGNED_SECONDS = 5.0
_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}

SampledTrial = tuple[Trial, int]  # a trial and its slot, counted from 0
StopCriterion = Callable[[Sequence[TrialRecord]], bool]  # finished trials -> sample no more
OnChange = Callable[[Sequence[TrialRecord]], None]  # called with the finished trials


class Worker:
    """This process; until it dies it holds a file lock, which the kernel then releases."""

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
        """Release the lock; after an error its file stays, so that others see a dead worker."""
        self._lock.release()
        if kind is None:
            self._path(self.uid).unlink(missing_ok=True)

    def is_dead(self, uid: str) -> bool:
        """Whether another worker with a lock in this folder is known to be dead.

        False for a worker with another folder, which only heartbeats can show to be dead.
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


@dataclass
class SharedStudy:
    """A study that several workers share and that survives the loss of any of them.

    Attributes:
        name: of the study in the database.
        storage: the database.
        store: the committed records.
        worker: this process.
        sampler: samples the parameters of trials.
        pruner: ends unpromising trials early.
        costs: objectives that are minimized; the value of a trial is maximized.
    """

    name: str
    storage: RDBStorage
    store: TrialStore
    worker: Worker
    sampler: BaseSampler
    pruner: BasePruner
    costs: Sequence[SearchCost] = ()

    def __post_init__(self) -> None:
        with silence_logger("optuna", logging.ERROR):
            self._study = optuna.create_study(
                storage=self.storage,
                study_name=self.name,
                sampler=self.sampler,
                pruner=self.pruner,
                directions=[
                    StudyDirection.MAXIMIZE,
                    *(StudyDirection.MINIMIZE for _ in self.costs),
                ],
                load_if_exists=True,
            )
        # Hyperband makes its brackets at its first decision, which the sampler must not wait for.
        self.pruner.prune(self._study, create_trial(state=TrialState.RUNNING))
        self._first_seen: dict[str, float] = {}
        self._heartbeats: dict[int, ExitStack] = {}

    def sample_trials(
        self, limit: int, should_stop: StopCriterion, on_change: OnChange
    ) -> Iterator[SampledTrial | None]:
        """Sample trials until ``limit`` are finished, or ``should_stop`` of the finished ones.

        The limit is that of all workers together. Each trial has one of ``limit`` slots. A lost
        trial is sampled again, with its number and its slot, and a worker that starts one trial too
        many gives it back. The caller commits or releases every trial. None means that all
        remaining trials are running, in this worker or in others. ``on_change`` is called at the
        start and after every change.

        Raises:
            StorageError: a record cannot be read or written.
        """
        while True:
            records = self.sync()
            on_change(records)
            if len(records) >= limit or should_stop(records):
                return
            running = self._running_trials()
            is_unsigned = any(WORKER not in trial.user_attrs for trial in running)
            if is_unsigned or len(records) + len(running) >= limit:
                yield None  # other workers sign their trials or finish the last ones, or die
                continue
            sampled_trial = self._sample_trial(limit)
            if sampled_trial is not None:
                yield sampled_trial

    def commit(self, sampled_trial: SampledTrial, record: TrialRecord) -> TrialRecord | None:
        """Sign and write the record of a trial; return None if the trial was declared lost.

        Raises:
            StorageError: the record cannot be written.
        """
        trial, slot = sampled_trial
        try:
            frozen = self._study.get_trials(deepcopy=False)[trial.number]
            is_running = frozen.state == TrialState.RUNNING
            if not is_running or frozen.user_attrs[WORKER] != self.worker.uid:
                return None
            signed = record.model_copy(
                update={
                    "uid": frozen.user_attrs[UID],
                    "worker": self.worker.uid,
                    "plan_index": slot,
                    "system_attributes": json.loads(json.dumps(frozen.system_attrs, default=str)),
                }
            )
            self.store.write(signed)  # from this line on the trial counts as finished
            self._finish_trial(frozen, signed)
        except UpdateFinishedTrialError:
            return None
        finally:
            self.release(sampled_trial)
        return signed

    def release(self, sampled_trial: SampledTrial) -> None:
        """Stop the heartbeats of a trial that is finished or belongs to another worker."""
        heartbeat = self._heartbeats.pop(sampled_trial[0].number, None)
        if heartbeat is not None:
            heartbeat.close()

    def close(self) -> None:
        """Stop all heartbeats; trials that still run are freed by other workers."""
        for number in list(self._heartbeats):
            self._heartbeats.pop(number).close()

    def sync(self) -> list[TrialRecord]:
        """Bring records and database to the same state; return all records.

        Writes a record for each finished trial of a worker on another machine. Adds to the database
        the records that it lacks, because it is new. Finishes trials whose worker died after
        committing them.
        """
        make_folder(self.store.folder)
        with hold_lock(self.store.folder / SYNC_LOCK):
            records = {record.uid: record for record in self.store.records()}
            trials = self._study.get_trials(deepcopy=False)
            for trial in trials:
                text = trial.user_attrs.get(RECORD)
                if text and trial.state.is_finished() and trial.user_attrs[UID] not in records:
                    record = _parse_record(text)
                    self.store.write(record)
                    records[record.uid] = record
            by_uid = {trial.user_attrs[UID]: trial for trial in trials if UID in trial.user_attrs}
            self._finish_committed_trials(records, by_uid)
            missing = [record for uid, record in records.items() if uid not in by_uid]
            self._add_trials(sorted(missing, key=lambda record: record.number), len(trials))
            self._requeue_lost_trials()
        return sorted(records.values(), key=lambda record: (record.number, record.uid))

    def _sample_trial(self, limit: int) -> SampledTrial | None:
        """Sample a trial and choose its slot; return None if no slot is free or it was lost."""
        heartbeat = ExitStack()
        try:
            trial = self._ask_trial()
            heartbeat.enter_context(send_heartbeats(self.storage, trial._trial_id))
            slot = trial.user_attrs.get(SLOT)
            slot = self._choose_slot(trial.number) if slot is None else slot
            if slot < limit:
                trial.set_user_attr(SLOT, slot)
                self._heartbeats[trial.number] = heartbeat.pop_all()
                return trial, slot
            self._study.tell(trial.number, state=TrialState.FAIL)  # other workers have all slots
        except UpdateFinishedTrialError:
            return None  # it was declared lost, and its slot belongs to another worker
        finally:
            heartbeat.close()
        return None

    def _ask_trial(self) -> Trial:
        """Ask Optuna for a trial, a lost one if any, and sign it with this worker's uid."""
        with silence_logger("optuna", logging.ERROR), warnings.catch_warnings():
            # Optuna's own loop sends heartbeats, but handles a trial's errors like its own.
            warnings.filterwarnings("ignore", message="Heartbeat of storage")
            trial = self._study.ask()
        trial.set_user_attr(WORKER, self.worker.uid)
        if UID not in trial.user_attrs:
            trial.set_user_attr(UID, f"{self.worker.uid}{trial.number:08x}")
        return trial

    def _finish_trial(self, trial: FrozenTrial, record: TrialRecord) -> None:
        """Set the state and the values of a running trial in the database from its record."""
        self.storage.set_trial_user_attr(trial._trial_id, RECORD, record.model_dump_json())
        is_complete = record.value is not None
        state = None if is_complete else _STATES[record.state]
        self._study.tell(trial.number, record.objective_values, state, skip_if_finished=True)

    def _choose_slot(self, number: int) -> int:
        """Wait until all earlier trials have their slot; return the lowest one that is free."""
        while True:
            trials = self._study.get_trials(deepcopy=False)
            waiting_for = [
                t for t in trials[:number] if t.state in _UNFINISHED and SLOT not in t.user_attrs
            ]
            if not waiting_for:
                break
            for trial in (t for t in waiting_for if t.state == TrialState.WAITING):
                # It was lost before it had a slot, which this trial can have as well.
                with suppress(UpdateFinishedTrialError):
                    self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            self._requeue_lost_trials()
            time.sleep(_POLL_SECONDS)
        alive = (t for t in trials if t.state in _UNFINISHED or RECORD in t.user_attrs)
        used_slots = {trial.user_attrs.get(SLOT) for trial in alive}
        return next(slot for slot in itertools.count() if slot not in used_slots)

    def _running_trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _finish_committed_trials(
        self, records: dict[str, TrialRecord], trials: dict[str, FrozenTrial]
    ) -> None:
        """Finish the running trials, by uid, whose worker died after committing the record."""
        for uid, trial in trials.items():
            record = records.get(uid)
            if record and trial.state == TrialState.RUNNING and self._is_lost(trial):
                self._finish_trial(trial, record)

    def _add_trials(self, records: Sequence[TrialRecord], count: int) -> None:
        """Add trials to the ``count`` in the database; if it is empty, they keep their numbers."""
        for record in records:
            while count < record.number:
                # The trial with this number was lost, or its record is on another machine.
                self._study.add_trial(create_trial(state=TrialState.FAIL))
                count += 1
            self._study.add_trial(make_frozen_trial(record))
            count += 1

    def _requeue_lost_trials(self) -> None:
        """Queue the running trials whose worker is dead, so that a worker starts them again.

        They keep their numbers, which seed the sampler, and their slots. So with one worker, the
        trials of an interrupted search are those of an uninterrupted one.
        """
        for trial in self._running_trials():
            if self._is_lost(trial):
                with self.storage.engine.begin() as connection:
                    for statement in _RESET:
                        connection.execute(statement, {"trial_id": trial._trial_id})
                with suppress(UpdateFinishedTrialError):
                    self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._study)  # by heartbeats

    def _is_lost(self, trial: FrozenTrial) -> bool:
        """Whether the worker of a running trial is known to be dead.

        A worker signs a trial at once, so a trial that stays unsigned has lost its worker. If the
        worker was only slow, it cannot commit the trial.
        """
        worker = trial.user_attrs.get(WORKER)
        if worker is not None:
            return self.worker.is_dead(worker)
        first_seen = self._first_seen.setdefault(str(trial._trial_id), time.monotonic())
        return time.monotonic() - first_seen > _UNSIGNED_SECONDS


def make_frozen_trial(record: TrialRecord) -> FrozenTrial:
    """Build Optuna's trial from a record.

    Raises:
        StorageError: the values, their distributions and the state contradict each other.
    """
    try:
        return _create_trial(record)
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise StorageError(
            f"trial {record.number} of the study {record.study} is damaged; move its file away and "
            "start the same toxbench tune again"
        ) from error


def _create_trial(record: TrialRecord) -> FrozenTrial:
    return create_trial(
        state=_STATES[record.state],
        values=record.objective_values,
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
    """Build a study of the metric alone from records, for reports."""
    with silence_logger("optuna", logging.ERROR):
        study = optuna.create_study(direction="maximize")
        without_costs = (record.model_copy(update={"costs": {}}) for record in records)
        study.add_trials([make_frozen_trial(record) for record in without_costs])
    return study


def _parse_record(text: str) -> TrialRecord:
    """Parse a record that another worker stored in the database."""
    try:
        return TrialRecord.model_validate_json(text)
    except ValidationError as error:
        raise StorageError(
            "the database of studies holds a trial that cannot be read, perhaps of another "
            "version of toxbench; use another --storage"
        ) from error
