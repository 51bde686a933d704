"""The database of studies: SQLite in the results folder, or any SQLAlchemy URL."""

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
from toxbench.store.folder import hold_lock
from toxbench.util.atomic import make_folder, write_error
from toxbench.util.text import is_secret

HEARTBEAT_SECONDS = 5
GRACE_SECONDS = 30  # a worker without a heartbeat for this long counts as dead
_ATTEMPTS = 5
_UNWRITABLE = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")


def sqlite_url(folder: Path) -> str:
    """Return the URL of the default database in the folder of a protocol's studies."""
    return f"sqlite:///{(folder / 'studies.sqlite3').resolve()}"


def redact_url(url: str) -> str:
    """Return a URL with ``***`` in place of its passwords, query parameters included."""
    parsed = make_url(url)
    query = {name: "***" if is_secret(name) else value for name, value in parsed.query.items()}
    return parsed.set(query=query).render_as_string(hide_password=True).replace("%2A", "*")


def check_url(url: str) -> URL:
    """Parse a URL and import its driver.

    Raises:
        SettingsError: it is not an SQLAlchemy URL, its driver is not installed, or it is a SQLite
            database without a file.
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
            f"--storage {redact_url(url)}: the driver {error.name} is not installed; "
            'pip install "toxbench[postgres]" for PostgreSQL'
        ) from error
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise SettingsError(
            "--storage sqlite: a database in memory is lost when the command ends; "
            "name a file: sqlite:///FILE"
        )
    return parsed


def open_storage(url: str, lock_folder: Path) -> tuple[RDBStorage, str | None]:
    """Open a database of studies, and create its tables if they are missing.

    A damaged SQLite file is moved aside; its trials are restored from their records. Workers hold
    a lock in ``lock_folder`` while they open the database.

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
                _check_sqlite_path(path)
                warning = _move_aside_if_damaged(path, url)
            return _connect(url, _engine_arguments(parsed)), warning
    except OSError as error:
        raise write_error(lock_folder, error) from error


@contextmanager
def database_errors(url: str) -> Iterator[None]:
    """Convert database errors into toxbench errors of one line without secrets.

    Raises:
        TryAgainError: the database cannot be reached, or the connection was lost.
        StorageError: the disk of a SQLite file is full, or the file cannot be written.
    """
    try:
        # SQLAlchemy logs a traceback of errors that it also raises, such as Ctrl-C.
        with silence_logger("sqlalchemy.pool", logging.CRITICAL):
            yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        driver_error = _driver_error(error)
        if getattr(driver_error, "sqlite_errorname", "").startswith(_UNWRITABLE):
            raise StorageError(
                f"cannot write {make_url(url).database}: {driver_error}; finished trials are "
                "stored: make room and start the same command again"
            ) from error
        reason = type(driver_error).__name__
        raise TryAgainError(
            f"storage {redact_url(url)} does not answer ({reason}); finished trials are stored: "
            "start the same command again when it is reachable"
        ) from error


@contextmanager
def send_heartbeats(storage: RDBStorage, trial_id: int) -> Iterator[None]:
    """Record a heartbeat every few seconds, so that other workers know that this one is alive."""
    storage.record_heartbeat(trial_id)
    stop = Event()

    def record_heartbeats() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            # If the database is unreachable, the trial itself raises that error.
            with suppress(SQLAlchemyError, OptunaError):
                storage.record_heartbeat(trial_id)
        storage.remove_session()

    thread = Thread(target=record_heartbeats, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def silence_logger(name: str, level: int) -> Iterator[None]:
    """Drop a logger's messages below a level, because toxbench reports the same events."""
    logger = logging.getLogger(name)
    previous = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(previous)


def _driver_error(error: BaseException) -> BaseException:
    """Return the error of the database driver, or ``error`` itself if it is unknown."""
    if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__ is not None:
        return _driver_error(error.__cause__)
    return getattr(error, "orig", None) or error


def _check_sqlite_path(path: Path) -> None:
    """Refuse a path where no file can be created, before any waiting."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise StorageError(
            f"{path}: a SQLite file cannot be created here; name a file in an existing folder"
        )


def _engine_arguments(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": 60}}  # seconds that a writer waits for another one
    return {"pool_pre_ping": True}


def _connect(url: str, arguments: dict[str, Any]) -> RDBStorage:
    """Connect to the database; retry, because two workers may create the tables at once."""
    for attempt in range(_ATTEMPTS):
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
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError("unreachable")


def _move_aside_if_damaged(path: Path, url: str) -> str | None:
    """Rename a file that SQLite cannot read, rather than delete it; return a warning."""
    if not path.is_file():
        return None
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            check_result = connection.execute(text("PRAGMA quick_check(1)")).scalar()
    except DatabaseError as error:
        if "locked" in str(error.orig):
            raise
        check_result = str(error.orig)
    finally:
        engine.dispose()
    if check_result == "ok":
        return None
    backup = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    try:
        for suffix in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        os.replace(path, backup)
    except OSError as error:
        raise StorageError(f"cannot move {path} aside: {error.strerror}") from error
    return (
        f"{path.name} is damaged and was renamed to {backup.name}; "
        "its trials are restored from their records"
    )
