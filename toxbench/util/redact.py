"""What is nobody else's business, and is therefore in no stored file."""

import os
import re

_SECRETS = ("TOKEN", "_KEY", "PASSWORD", "PASSWD", "SECRET")  # in names of environment variables
_SHORTEST = 4  # characters of a secret; less would blot out words
_KNOWN = re.compile(r"\bhf_\w{8,}|(?<=://)[^/\s@]+:[^/\s@]+(?=@)")  # tokens; user:password of URLs


def redact(text: str) -> str:
    """Take secrets, the home folder and the user's name out of a message.

    Secrets are the values of environment variables whose names say so, the Hub's tokens, and
    passwords in URLs.
    """
    text = _KNOWN.sub("***", text)
    secrets = {v for k, v in os.environ.items() if any(word in k.upper() for word in _SECRETS)}
    for value in sorted(secrets, key=len, reverse=True):
        if len(value) >= _SHORTEST:
            text = text.replace(value, "***")
    for home in _homes():
        text = re.sub(rf"{re.escape(home)}(?![\w-])", "~", text)
    users = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME")} - {""}
    for user in users:
        text = re.sub(rf"(?<!\w){re.escape(user)}(?!\w)", "USER", text)
    return text.encode("utf-8", "replace").decode("utf-8")  # half surrogates cannot be stored


def _homes() -> list[str]:
    """Return the home folder by all its names, the longest first; none where it is the root."""
    home = os.path.expanduser("~").rstrip("/")
    names = {home, os.path.realpath(home)} if home not in {"", "~"} else set()
    return sorted(names, key=len, reverse=True)
