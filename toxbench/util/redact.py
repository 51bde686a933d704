"""Removal of private information from text that is stored."""

import os
import re

_SECRET_NAME = re.compile(  # of an environment variable or a URL's parameter
    r"(TOKENS?|SECRETS?|PASSW\w*|PASSPHRASE|CREDENTIALS?|KEYS?(_ID)?|_PWD)(_|$)", re.IGNORECASE
)
_MINIMUM_LENGTH = 4  # characters of a secret; shorter ones would erase ordinary words
_SECRET_PATTERN = re.compile(  # tokens of the Hub; user:password of URLs
    r"\bhf_\w{8,}|(?<=://)[^/\s@]+:[^/\s@]+(?=@)"
)


def is_secret(name: str) -> bool:
    """Return whether a variable or parameter of this name holds a secret, such as ``HF_TOKEN``."""
    return _SECRET_NAME.search(name) is not None


def redact(text: str) -> str:
    """Remove secrets, the home folder and the user's name from a message.

    Secrets are the values of environment variables with a name like ``..._TOKEN``, tokens of the
    Hugging Face Hub, and passwords in URLs.
    """
    text = _SECRET_PATTERN.sub("***", text)
    secrets = {value for name, value in os.environ.items() if is_secret(name)}
    for value in sorted(secrets, key=len, reverse=True):
        if len(value) >= _MINIMUM_LENGTH:
            text = text.replace(value, "***")
    for home in _home_paths():
        text = re.sub(rf"{re.escape(home)}(?![\w-])", "~", text)
    users = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME")} - {""}
    for user in users:
        text = re.sub(rf"(?<!\w){re.escape(user)}(?!\w)", "USER", text)
    return text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates cannot be stored


def _home_paths() -> list[str]:
    """Return all paths of the home folder, the longest first; none if it is the root."""
    home = os.path.expanduser("~").rstrip("/")
    paths = {home, os.path.realpath(home)} if home not in {"", "~"} else set()
    return sorted(paths, key=len, reverse=True)
