"""Opening the database of studies: SQLite in the results folder, or any SQLAlchemy URL."""

import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, SQLAlchemyError

from toxbench.errors import SettingsError, StorageError, TryAgainError
from toxbench.store.lock import hold_lock
from toxbench.util.atomic import make_folder, write_error

HEARTBEAT_SECONDS = 5
GRACE_SECONDS = 30  # a worker that is silent for so long is taken for dead
_TRIES = 5
_UNWRITABLE = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")


def sqlite_url(folder: Path) -> str:
    """Return the URL of the default database, below a protocol's folder."""
    return f"sqlite:///{(folder / 'studies.sqlite3').resolve()}"


def shown_url(url: str) -> str:
    """Return a URL without its passwords, wherever they stand."""
    parsed = make_url(url)
    hidden = {name: "***" if _is_secret(name) else value for name, value in parsed.query.items()}
    return parsed.set(query=hidden).render_as_string(hide_password=True).replace("%2A", "*")


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in ("password", "passwd", "secret", "token"))


def check_url(url: str) -> URL:
    """Read a URL and find its driver.

    Raises:
        SettingsError: it is no SQLAlchemy URL, its driver is not installed, or the folder of its
            SQLite file is not there.
    """
    try:
        parsed = make_url(url)
        parsed.get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise SettingsError(
            "--storage: not an SQLAlchemy URL; write for example "
            "postgresql+psycopg://USER@HOST/DATABASE or sqlite:///studies.sqlite3"
        ) from error
    except ImportError as error:
        raise SettingsError(
            f"--storage {shown_url(url)}: the driver {error.name} is not installed; "
            'pip install "toxbench[postgres]" for PostgreSQL'
        ) from error
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise SettingsError("--storage sqlite: name a file; one in memory is lost: sqlite:///FILE")
    return parsed


@contextmanager
def database_errors(url: str) -> Iterator[None]:
    """Turn what a database raises, or is interrupted in, into one line without any secret.

    Raises:
        TryAgainError: it cannot be reached, or went away.
        StorageError: the disk of a SQLite file is full, or the file cannot be written.
    """
    try:
        with _quiet_pool():
            yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        origin = _origin(error)
        if getattr(origin, "sqlite_errorname", "").startswith(_UNWRITABLE):
            raise StorageError(
                f"cannot write {make_url(url).database}: {origin}; finished trials are stored: "
                "make room and start the same command again"
            ) from error
        reason = type(origin).__name__
        raise TryAgainError(
            f"storage {shown_url(url)} does not answer ({reason}); finished trials are stored: "
            "start the same command again when it is there"
        ) from error


@contextmanager
def _quiet_pool() -> Iterator[None]:
    """Keep SQLAlchemy from logging a traceback of what it raises as well, such as Ctrl-C."""
    logger = logging.getLogger("sqlalchemy.pool")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _origin(error: BaseException) -> BaseException:
    """Return what a database's driver raised, as far as it is known."""
    if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__ is not None:
        return _origin(error.__cause__)
    return getattr(error, "orig", None) or error


@contextmanager
def beating(storage: RDBStorage, trial_id: int) -> Iterator[None]:
    """Let the database know, every few seconds, that the worker of a trial still lives."""
    storage.record_heartbeat(trial_id)
    stop = Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            # Where the database is gone, the trial itself meets that too, and says so.
            with suppress(SQLAlchemyError, OptunaError):
                storage.record_heartbeat(trial_id)
        storage.remove_session()

    thread = Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def open_storage(url: str, lock_folder: Path) -> tuple[RDBStorage, str | None]:
    """Open a database of studies, and make its tables where there are none.

    A SQLite file that is damaged is moved aside; its trials come back from their records.

    Returns:
        the storage, and a warning if a file was moved aside.

    Raises:
        SettingsError: as `check_url`.
        TryAgainError: the database cannot be reached.
        StorageError: the file or its folder cannot be written.
    """
    parsed = check_url(url)
    warning = None
    make_folder(lock_folder)
    try:
        with hold_lock(lock_folder / ".opening.lock"), database_errors(url):
            if parsed.get_backend_name() == "sqlite" and parsed.database:
                path = Path(parsed.database)
                _check_place(path)
                warning = _move_aside_if_damaged(path, url)
            return _open(url, _engine_arguments(parsed)), warning
    except OSError as error:
        raise write_error(lock_folder, error) from error


def _check_place(path: Path) -> None:
    """Refuse a file that could never be made, before waiting for it."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise StorageError(f"{path}: a SQLite file needs a folder that is there, and a name in it")


def _engine_arguments(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": 60}}  # seconds that a writer waits for another
    return {"pool_pre_ping": True}


def _open(url: str, arguments: dict[str, Any]) -> RDBStorage:
    """Open the storage; two workers that make the tables at once do not fail over it."""
    for attempt in range(_TRIES):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats
                return RDBStorage(
                    url,
                    engine_kwargs=arguments,
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    grace_period=GRACE_SECONDS,
                )
        except (DatabaseError, AssertionError):
            if attempt == _TRIES - 1:
                raise
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError("unreachable")


def _move_aside_if_damaged(path: Path, url: str) -> str | None:
    """Rename a file that SQLite cannot read; it is evidence, so it is not deleted."""
    if not path.is_file():
        return None
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            answer = connection.execute(text("PRAGMA quick_check(1)")).scalar()
    except DatabaseError as error:
        if "locked" in str(error.orig):
            raise
        answer = str(error.orig)
    finally:
        engine.dispose()
    if answer == "ok":
        return None
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    try:
        for suffix in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        os.replace(path, aside)
    except OSError as error:
        raise StorageError(f"cannot move {path} aside: {error.strerror}") from error
    return f"{path.name} was damaged; it is now {aside.name}, and the trials are read from records"
