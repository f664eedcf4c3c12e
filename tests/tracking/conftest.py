"""How a spool gets its records onto a disk."""

import mmap

import pytest

from tracking.spool import preallocation


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that reserves nothing: records go by ``write()``."""
    monkeypatch.setattr(preallocation, "_IN_PLACE", ())


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that reserves room, in small pieces, whatever the tests lie on."""
    monkeypatch.setattr(preallocation, "_writes_in_place", lambda fd: True)
    monkeypatch.setattr(preallocation, "ROOM_BYTES", 4 * mmap.ALLOCATIONGRANULARITY)


@pytest.fixture(params=["roomy", "written"])
def way(request: pytest.FixtureRequest) -> None:
    """Both ways of writing."""
    request.getfixturevalue(request.param)
