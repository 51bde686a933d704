"""Checksums of files and texts."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal; the file is read in blocks.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def update_with_texts(digest: "hashlib._Hash", texts: Iterable[str]) -> None:
    """Add texts in UTF-8, each preceded by its length in 8 bytes, little-endian."""
    for text in texts:
        data = text.encode("utf-8")
        digest.update(len(data).to_bytes(8, "little") + data)
