"""The spool writer on a disk that is full, refuses writes or accepts parts: hits are answered, losses counted."""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tracking.spool_helpers import NO_SPACE, fork_process, lost_and_skipped, make_hit, raise_no_space, read_all
from tracking.spool import preallocation, record_codec
from tracking.spool import writer as spool_writer
from tracking.spool.writer import SpoolWriter


def test_refused_writes_are_counted_as_lost_hits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain_writes: None
) -> None:
    monkeypatch.setattr(spool_writer, "RETRY_SECONDS", 0.0)
    writer = SpoolWriter(tmp_path)
    writer.append(make_hit(1))
    real = os.pwrite

    def half(fd: int, data: bytes, at: int) -> int:
        return real(fd, data[: len(data) // 2], at)

    for failing in (raise_no_space, half, raise_no_space):
        monkeypatch.setattr(os, "pwrite", failing)
        assert not writer.append(make_hit(2))
    monkeypatch.setattr(os, "pwrite", real)
    assert writer.append(make_hit(3))
    assert writer.lost_hits == 3
    assert writer.unreported_losses == 0
    assert [each.number for each in read_all(tmp_path)] == [1, 3]
    assert lost_and_skipped(tmp_path) == (3, 0)


def test_a_partial_record_that_cannot_be_truncated_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain_writes: None
) -> None:
    monkeypatch.setattr(spool_writer, "RETRY_SECONDS", 0.0)
    writer = SpoolWriter(tmp_path)
    real = os.pwrite
    writer.append(make_hit(1))
    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:10], at))
        broken.setattr(os, "ftruncate", raise_no_space)
        broken.setattr(os, "fdatasync", raise_no_space)
        writer.append(make_hit(2))
    writer.append(make_hit(3))
    assert [each.number for each in read_all(tmp_path)] == [1, 3]


def test_without_preallocated_space_records_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preallocated_writes: None
) -> None:
    """A disk that fills up is used to its end, in the same file."""
    writer, real = SpoolWriter(tmp_path), os.posix_fallocate
    hits = [make_hit(number) for number in range(1_000)]
    for each in hits[:10]:
        writer.append(each)

    def partly(fd: int, offset: int, length: int) -> None:
        real(fd, offset, length // 2)
        raise NO_SPACE

    monkeypatch.setattr(os, "posix_fallocate", partly)
    assert all(writer.append(each) for each in hits[10:])
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size == sum(len(record_codec.pack(each)) for each in hits)
    assert read_all(tmp_path) == hits


def test_preallocated_space_that_cannot_be_truncated_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preallocated_writes: None
) -> None:
    writer = SpoolWriter(tmp_path, rotate_bytes=300)
    with monkeypatch.context() as broken:
        broken.setattr(os, "ftruncate", raise_no_space)
        hits = [make_hit(number) for number in range(50)]
        assert all(writer.append(each) for each in hits)
        writer.close()
    assert read_all(tmp_path) == hits
    assert lost_and_skipped(tmp_path) == (0, 0)


def test_a_full_disk_loses_only_the_reported_hits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preallocated_writes: None
) -> None:
    """The kernel refuses: a file size limit under which neither preallocated space nor a complete record fits."""
    monkeypatch.setattr(spool_writer, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(spool_writer.log, "error", lambda *_, **__: None)  # The limit also applies to log output.
    reading, writing = os.pipe()

    def fill() -> None:
        writer, size = SpoolWriter(tmp_path), len(record_codec.pack(make_hit(1)))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (preallocation.PREALLOCATED_BYTES + 5 * size // 2, limits[1]))
        kept = [writer.append(make_hit(number)) for number in range(1, 1_000)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        writer.close()
        kept += [writer.append(make_hit(number)) for number in range(1_000, 1_010)]
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        kept.append(writer.append(make_hit(1_010)))
        os.write(writing, bytes(kept))

    pid = fork_process(fill)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        kept = list(pipe.read())
    assert os.waitpid(pid, 0)[1] == 0
    answered = [number for number, whether in enumerate(kept, 1) if whether]
    assert [each.number for each in read_all(tmp_path)] == answered
    assert len(kept) == 1_010
    assert lost_and_skipped(tmp_path) == (kept.count(0), 0)
    assert kept.count(0) > 5


def test_creating_the_directory_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_writer, "RETRY_SECONDS", 0.0)
    directory = tmp_path / "spool"
    directory.write_text("in the way")
    writer = SpoolWriter(directory)
    assert not writer.append(make_hit(1))
    directory.unlink()
    assert writer.append(make_hit(2))
    assert [each.number for each in read_all(directory)] == [2]


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", place]).returncode:
        pytest.skip("nobody may mount a file system here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_file_system_does_not_kill_the_process(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store into space that the disk cannot provide would kill the process (SIGBUS)."""
    monkeypatch.setattr(spool_writer, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(spool_writer.log, "error", lambda *_, **__: None)
    (tiny / "ballast").write_bytes(bytes(300_000))
    reading, writing = os.pipe()

    def fill() -> None:
        writer = SpoolWriter(tiny / "spool")
        kept = [writer.append(make_hit(number, b"a" * 400)) for number in range(1, 6_000)]
        (tiny / "ballast").unlink()
        kept.append(writer.append(make_hit(6_000)))
        writer.close()
        os.write(writing, bytes(kept))

    pid = fork_process(fill)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        kept = list(pipe.read())
    assert os.waitpid(pid, 0)[1] == 0
    assert len(kept) == 6_000
    assert kept[-1]
    assert 1_000 < kept.count(0) < 3_000
    assert [each.number for each in read_all(tiny / "spool")] == [n for n, whether in enumerate(kept, 1) if whether]
    assert lost_and_skipped(tiny / "spool") == (kept.count(0), 0)
