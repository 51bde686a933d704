"""The database of studies: invalid URLs, damaged files, and passwords in messages."""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from sqlalchemy import Engine, create_engine, text

from toxbench.errors import SettingsError, StorageError, ToxbenchError, TryAgainError
from toxbench.tuning.storage import (
    database_errors,
    open_storage,
    redact_url,
    sqlite_url,
)

pytestmark = pytest.mark.slow

SECRET = "hunter2x"  # noqa: S105


def create_study(url: str, folder: Path, name: str = "one") -> None:
    """Open a database as toxbench does, and create a study."""
    storage, _ = open_storage(url, folder)
    optuna.create_study(storage=storage, study_name=name)
    storage.remove_session()
    storage.engine.dispose()


def study_names(url: str, folder: Path) -> list[str]:
    storage, _ = open_storage(url, folder)
    try:
        return optuna.get_all_study_names(storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "://",
        "http://localhost/studies",
        f"nosuchbase://u:{SECRET}@localhost/db",
        f"postgresql+nosuchdriver://u:{SECRET}@localhost/db",
        f"mysql+pymysql://u:{SECRET}@localhost/db",
        f"postgresql+psycopg://u:{SECRET}@localhost:port/db",
        f"postgresql+psycopg://u:{SECRET}@[::1/db",
    ],
)
def test_invalid_url_is_refused_without_its_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        open_storage(url, tmp_path)
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "--storage" in str(raised.value)


def test_missing_driver_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="driver pymysql is not installed"):
        open_storage("mysql+pymysql://u@localhost/db", tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://u:{SECRET}@localhost/db",
        f"postgresql+psycopg://u@localhost/db?password={SECRET}",
        f"postgresql+psycopg://localhost/db?user=u&sslmode=disable&password={SECRET}",
        f"postgresql+psycopg://u@localhost/db?sslpassword={SECRET}",
    ],
)
def test_passwords_in_a_url_are_redacted(url: str) -> None:
    redacted = redact_url(url)
    assert SECRET not in redacted
    assert "localhost" in redacted


@pytest.mark.parametrize(
    "url", ["sqlite:///a.sqlite3", "postgresql+psycopg://u@localhost/db?host=/tmp/x"]
)
def test_url_without_a_password_has_no_asterisks(url: str) -> None:
    assert "***" not in redact_url(url)


@pytest.mark.parametrize("place", ["u:{}@127.0.0.1:1/db", "u@127.0.0.1:1/db?password={}"])
def test_unreachable_server_is_temporary(place: str, tmp_path: Path) -> None:
    url = f"postgresql+psycopg://{place.format(SECRET)}"
    with pytest.raises(TryAgainError) as raised:
        open_storage(url, tmp_path)
    assert "does not answer" in str(raised.value)
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_new_file_is_created_and_reopened(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    create_study(url, tmp_path)
    assert study_names(url, tmp_path) == ["one"]
    assert (tmp_path / "studies.sqlite3").is_file()


def test_intact_file_is_not_moved(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    create_study(url, tmp_path)
    storage, warning = open_storage(url, tmp_path)
    storage.remove_session()
    storage.engine.dispose()
    assert warning is None
    assert not list(tmp_path.glob("*.damaged-*"))


@pytest.mark.parametrize("damage", ["garbage", "header", "cut", "middle"])
def test_damaged_file_is_moved_and_replaced(damage: str, tmp_path: Path) -> None:
    url, path = sqlite_url(tmp_path), tmp_path / "studies.sqlite3"
    create_study(url, tmp_path)
    content = path.read_bytes()
    size = len(content)
    damaged = {
        "garbage": b"no database " * 1000,
        "header": bytes(100) + content[100:],
        "cut": content[: size // 2 + 7],
        "middle": content[: size // 4] + b"\xff" * (size // 2) + content[size // 4 * 3 :],
    }[damage]
    path.write_bytes(damaged)
    (tmp_path / "studies.sqlite3-journal").write_bytes(b"of the old file")
    storage, warning = open_storage(url, tmp_path)
    storage.remove_session()
    storage.engine.dispose()
    assert warning is not None
    assert "damaged" in warning
    (backup,) = tmp_path.glob("studies.sqlite3.damaged-*")
    assert backup.read_bytes() == damaged
    assert study_names(url, tmp_path) == []


def test_empty_file_is_a_new_database(tmp_path: Path) -> None:
    (tmp_path / "studies.sqlite3").touch()
    assert study_names(sqlite_url(tmp_path), tmp_path) == []


def test_tables_of_other_programs_remain(tmp_path: Path) -> None:
    path = tmp_path / "studies.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE other (word TEXT)")
    connection.execute("INSERT INTO other VALUES ('text')")
    connection.commit()
    connection.close()
    create_study(sqlite_url(tmp_path), tmp_path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT word FROM other").fetchall() == [("text",)]
    connection.close()


def test_impossible_folders_are_storage_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    folder = tmp_path / "file" / "tuning"
    with pytest.raises(StorageError):
        open_storage(sqlite_url(folder), folder)
    folder = tmp_path / "file"
    with pytest.raises(StorageError):
        open_storage(sqlite_url(tmp_path), folder)


@pytest.mark.parametrize("url", ["sqlite:////nowhere/at/all.sqlite3", "sqlite:///{}/folder"])
def test_impossible_file_is_not_temporary(url: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises((StorageError, SettingsError)) as raised:
        open_storage(url.format(tmp_path), tmp_path)
    assert "\n" not in str(raised.value)


def test_later_database_error_is_one_line(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    storage, _ = open_storage(url, tmp_path)
    (tmp_path / "studies.sqlite3").write_bytes(b"garbage" * 1000)
    storage.engine.dispose()
    with pytest.raises(ToxbenchError) as raised, database_errors(url):
        optuna.create_study(storage=storage, study_name="one")
    storage.remove_session()
    storage.engine.dispose()
    assert "\n" not in str(raised.value)


SLOW_SECOND_ROW = """
WITH RECURSIVE number(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < 5000000)
SELECT i FROM number WHERE i IN (1, 5000000)
"""


def fetch_slowly(engine: Engine) -> None:
    """Fetch as Optuna does, closing the result in every case."""
    with engine.connect() as connection, closing(connection.execute(text(SLOW_SECOND_ROW))) as rows:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        rows.fetchall()


def test_interrupted_query_logs_no_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Python writes log records without a handler to stderr."""
    url = sqlite_url(tmp_path)
    engine = create_engine(url)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), database_errors(url):
            fetch_slowly(engine)
    finally:
        signal.signal(signal.SIGALRM, before)
        engine.dispose()
    assert caplog.messages == []
