"""Fixtures that select how the spool writer writes records."""

import mmap

import pytest

from tracking.spool import preallocation


@pytest.fixture
def plain_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system without preallocation: records are written with ``pwrite()``."""
    monkeypatch.setattr(preallocation, "_IN_PLACE_FILE_SYSTEMS", ())


@pytest.fixture
def preallocated_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system with preallocation, in small pieces, independent of the file system of the test run."""
    monkeypatch.setattr(preallocation, "_writes_in_place", lambda fd: True)
    monkeypatch.setattr(preallocation, "PREALLOCATED_BYTES", 4 * mmap.ALLOCATIONGRANULARITY)


@pytest.fixture(params=["preallocated_writes", "plain_writes"])
def write_mode(request: pytest.FixtureRequest) -> None:
    """Runs a test with both ways of writing."""
    request.getfixturevalue(request.param)
