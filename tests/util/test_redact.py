"""The one definition of a secret, which stored messages, Ray and URLs share."""

import pytest

from toxbench.util.text import is_secret, redact

SECRETS = [
    "HF_TOKEN", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "KAGGLE_KEY",
    "APIKEY", "PGPASSWORD", "MYSQL_PWD", "GOOGLE_APPLICATION_CREDENTIALS", "sslpassword",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRETS)
def test_secret_values_are_redacted(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert is_secret(name)
    monkeypatch.setenv(name, "correct-horse")
    assert redact("refused: correct-horse") == "refused: ***"


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "KEYBOARD", "PWD", "OLDPWD", "PATH"])
def test_ordinary_variables_are_not_secret(name: str) -> None:
    assert not is_secret(name)
