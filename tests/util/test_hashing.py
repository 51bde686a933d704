"""Checksums of files."""

from pathlib import Path

import pytest

from toxbench.util.content import sha256_file


def test_the_sha256_of_a_file_is_computed(tmp_path: Path) -> None:
    """The expected value is the example of FIPS 180-2, appendix B.1."""
    (tmp_path / "file").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "file") == expected


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sha256_file(tmp_path / "file")
