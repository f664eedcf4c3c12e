"""An answered hit stays, whatever happens to its file."""

import os
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tracking import collect, records, spool, tail
from tracking.records import Hit
from tracking.spool import Spool


def hit(number: int = 1, agent: bytes = b"agent") -> Hit:
    return Hit(1_700_000_000_000_000 + number, 1, 0, 1 << 32 | number, number, 7, agent)


def read_all(directory: Path) -> list[Hit]:
    found = []
    for of_spool in tail.files(directory).values():
        offset = 0
        while (read := tail.read(of_spool, offset, 500)).offset != offset:
            found += [hit for _, hit in read.hits]
            offset = read.offset
    return found


def test_a_hit_is_read_back_as_it_was(tmp_path: Path) -> None:
    writer = Spool(tmp_path)
    hits = [hit(1), hit(2, b""), hit(3, bytes(range(256)) + b"\xa7" * 244), hit(4)._replace(target=(1 << 62) + 5)]
    assert all(writer.append(each) for each in hits)
    assert read_all(tmp_path) == hits


def test_files_follow_each_other_and_offsets_count_on(tmp_path: Path) -> None:
    writer = Spool(tmp_path, rotate_bytes=300)
    hits = [hit(number) for number in range(50)]
    for each in hits:
        writer.append(each)
    (of_spool,) = tail.files(tmp_path).values()
    assert len(of_spool) > 5
    assert all(one.end == other.start for one, other in pairwise(of_spool))
    assert read_all(tmp_path) == hits


def test_threads_share_a_spool(tmp_path: Path) -> None:
    writer = Spool(tmp_path, rotate_bytes=2_000)

    def write(start: int) -> None:
        for number in range(start, start + 200):
            writer.append(hit(number))

    threads = [threading.Thread(target=write, args=(start,)) for start in range(0, 1_600, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.number for each in read_all(tmp_path)) == list(range(1_600))


@pytest.mark.parametrize("cut", [1, 7, 8, 20, 44])
def test_a_torn_tail_waits_and_then_is_skipped(tmp_path: Path, cut: int) -> None:
    record = records.pack(hit(1))
    path = tmp_path / spool.file_name("a" * 32, 0)
    path.write_bytes(record + records.pack(hit(2))[:-cut])
    (of_spool,) = tail.files(tmp_path).values()
    read = tail.read(of_spool, 0)
    assert (len(read.hits), read.offset, read.skipped) == (1, len(record), 0)
    torn = path.stat().st_size - len(record)
    (tmp_path / spool.file_name("a" * 32, path.stat().st_size)).write_bytes(records.pack(hit(3)))
    (of_spool,) = tail.files(tmp_path).values()
    read = tail.read(of_spool, len(record))
    assert (read.hits, read.skipped) == ([], torn)
    assert [each.number for _, each in tail.read(of_spool, read.offset).hits] == [3]


def test_damage_in_the_middle_costs_what_is_damaged(tmp_path: Path) -> None:
    parts = [records.pack(hit(number)) for number in range(5)]
    parts[2] = b"\xa7" * len(parts[2])
    (tmp_path / spool.file_name("a" * 32, 0)).write_bytes(b"".join(parts))
    (of_spool,) = tail.files(tmp_path).values()
    read = tail.read(of_spool, 0)
    assert [each.number for _, each in read.hits] == [0, 1, 3, 4]
    assert read.skipped == len(parts[2])


def test_a_damaged_chunk_does_not_stop_the_reader(tmp_path: Path) -> None:
    (tmp_path / spool.file_name("a" * 32, 0)).write_bytes(b"\xa7\x30\x00" * 20_000 + records.pack(hit(9)))
    (of_spool,) = tail.files(tmp_path).values()
    offset, found = 0, []
    while (read := tail.read(of_spool, offset, 4_000)).offset != offset:
        offset = read.offset
        found += read.hits
    assert [each.number for _, each in found] == [9]


@pytest.mark.parametrize("name", ["x.spool", "a" * 32 + "-xyz" + "0" * 13 + ".spool", "a" * 32 + ".spool", "readme"])
def test_foreign_files_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("hello")
    assert tail.files(tmp_path) == {}


def test_a_disk_that_refuses_costs_hits_and_says_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "RETRY_SECONDS", 0.0)
    writer = Spool(tmp_path)
    writer.append(hit(1))
    real = os.write

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    def half(fd: int, data: bytes) -> int:
        return real(fd, data[: len(data) // 2])

    for failing in (full, half, full):
        monkeypatch.setattr(os, "write", failing)
        assert not writer.append(hit(2))
    monkeypatch.setattr(os, "write", real)
    assert writer.append(hit(3))
    assert writer.lost == 3
    assert writer.untold == 0
    assert [each.number for each in read_all(tmp_path)] == [1, 3]
    (of_spool,) = tail.files(tmp_path).values()
    offset = lost = skipped = 0
    while (read := tail.read(of_spool, offset)).offset != offset:
        offset, lost, skipped = read.offset, lost + read.lost, skipped + read.skipped
    assert (lost, skipped) == (3, 0)


def test_half_a_record_that_cannot_be_taken_back_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "RETRY_SECONDS", 0.0)
    writer = Spool(tmp_path)
    real = os.write

    def refused(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    writer.append(hit(1))
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", lambda fd, data: real(fd, data[:10]))
        broken.setattr(os, "ftruncate", refused)
        broken.setattr(os, "fdatasync", refused)
        writer.append(hit(2))
    writer.append(hit(3))
    assert [each.number for each in read_all(tmp_path)] == [1, 3]


def test_a_directory_that_cannot_be_made_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "RETRY_SECONDS", 0.0)
    directory = tmp_path / "spool"
    directory.write_text("in the way")
    writer = Spool(directory)
    assert not writer.append(hit(1))
    directory.unlink()
    assert writer.append(hit(2))
    assert [each.number for each in read_all(directory)] == [2]


def test_a_forked_child_writes_a_spool_of_its_own() -> None:
    mine = spool.spool()
    assert spool.spool() is mine
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, spool.spool().name.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 100).decode() not in ("", mine.name)
    os.close(reading)
    os.close(writing)


def test_an_idle_process_lets_go_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_AGE_BEFORE_DELETION", -1.0)
    writer = Spool(tmp_path, rotate_seconds=0.0)
    writer.append(hit(1))
    (of_spool,) = tail.files(tmp_path).values()
    assert tail.delete_counted(of_spool, of_spool[0].end) == 0, "its writer lives"
    writer.sync()
    assert tail.delete_counted(of_spool, 0) == 0, "not counted yet"
    assert tail.delete_counted(of_spool, of_spool[0].end) == 1
    writer.append(hit(2))
    (of_spool,) = tail.files(tmp_path).values()
    assert of_spool[0].start > 0


def test_a_dead_writers_torn_tail_goes_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_AGE_BEFORE_DELETION", -1.0)
    record = records.pack(hit(1))
    (tmp_path / spool.file_name("a" * 32, 0)).write_bytes(record + record[:-3])
    (of_spool,) = tail.files(tmp_path).values()
    assert tail.delete_counted(of_spool, 0) == 0
    assert tail.delete_counted(of_spool, len(record)) == 1


def test_collected_files_go_within_a_day_also_after_the_clock_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that lives on lets go of its file after an hour; nobody keeps what is counted any longer."""
    writer = Spool(tmp_path)
    writer.append(hit(1))
    (busy,) = tail.files(tmp_path).values()
    real, ticking, day = time.time, time.monotonic, 24 * 3600
    for moved in (+day, -day):  # The wall's clock, after the file was written.
        monkeypatch.setattr(time, "time", lambda moved=moved: real() + moved)
        assert tail.delete_counted(busy, busy[0].end) == 0, "its writer lives"
    with monkeypatch.context() as hours_later:
        hours_later.setattr(time, "monotonic", lambda: ticking() + spool.ROTATE_SECONDS + 1)
        writer.sync()
    for moved, deleted in ((0, 0), (-day, 1)):
        monkeypatch.setattr(time, "time", lambda moved=moved: real() + moved)
        assert tail.delete_counted(busy, busy[0].end) == deleted
    writer.append(hit(2))
    assert [each.number for each in read_all(tmp_path)] == [2], "and it writes on"
    assert day > spool.ROTATE_SECONDS + tail._AGE_BEFORE_DELETION + collect.TIDY_SECONDS
