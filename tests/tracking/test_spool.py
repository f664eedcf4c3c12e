"""An answered hit stays, whatever happens to its file."""

import fcntl
import mmap
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tracking import collect, records, reserved, spool, tail
from tracking.records import Hit
from tracking.spool import Spool

NO_SPACE = OSError(28, "No space left on device")


def refused(*_: object) -> None:
    raise NO_SPACE


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that reserves nothing: records go by ``write()``."""
    monkeypatch.setattr(reserved, "_IN_PLACE", ())


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that reserves room, in small pieces, whatever the tests lie on."""
    monkeypatch.setattr(reserved, "_writes_in_place", lambda fd: True)
    monkeypatch.setattr(reserved, "ROOM_BYTES", 4 * mmap.ALLOCATIONGRANULARITY)


@pytest.fixture(params=["roomy", "written"])
def way(request: pytest.FixtureRequest) -> None:
    """Both ways of writing."""
    request.getfixturevalue(request.param)


def forked(work: Callable[[], None]) -> int:
    """A process of its own that does ``work``; it ends well when that does."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


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


def test_a_hit_is_read_back_as_it_was(tmp_path: Path, way: None) -> None:
    writer = Spool(tmp_path)
    hits = [hit(1), hit(2, b""), hit(3, bytes(range(256)) + b"\xa7" * 244), hit(4)._replace(target=(1 << 62) + 5)]
    assert all(writer.append(each) for each in hits)
    assert read_all(tmp_path) == hits


def test_files_follow_each_other_and_offsets_count_on(tmp_path: Path, way: None) -> None:
    writer = Spool(tmp_path, rotate_bytes=300)
    hits = [hit(number) for number in range(50)]
    for each in hits:
        writer.append(each)
    (of_spool,) = tail.files(tmp_path).values()
    assert len(of_spool) > 5
    assert all(one.end == other.start for one, other in pairwise(of_spool))
    assert read_all(tmp_path) == hits


def test_threads_share_a_spool(tmp_path: Path, way: None) -> None:
    writer = Spool(tmp_path, rotate_bytes=30_000)

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


def test_a_disk_that_refuses_costs_hits_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: None
) -> None:
    monkeypatch.setattr(spool, "RETRY_SECONDS", 0.0)
    writer = Spool(tmp_path)
    writer.append(hit(1))
    real = os.pwrite

    def half(fd: int, data: bytes, at: int) -> int:
        return real(fd, data[: len(data) // 2], at)

    for failing in (refused, half, refused):
        monkeypatch.setattr(os, "pwrite", failing)
        assert not writer.append(hit(2))
    monkeypatch.setattr(os, "pwrite", real)
    assert writer.append(hit(3))
    assert writer.lost == 3
    assert writer.untold == 0
    assert [each.number for each in read_all(tmp_path)] == [1, 3]
    assert told(tmp_path) == (3, 0)


def told(directory: Path) -> tuple[int, int]:
    """Of the only spool: lost hits that it tells of, bytes skipped."""
    (of_spool,) = tail.files(directory).values()
    offset = lost = skipped = 0
    while (read := tail.read(of_spool, offset)).offset != offset:
        offset, lost, skipped = read.offset, lost + read.lost, skipped + read.skipped
    return lost, skipped


def test_half_a_record_that_cannot_be_taken_back_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: None
) -> None:
    monkeypatch.setattr(spool, "RETRY_SECONDS", 0.0)
    writer = Spool(tmp_path)
    real = os.pwrite
    writer.append(hit(1))
    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:10], at))
        broken.setattr(os, "ftruncate", refused)
        broken.setattr(os, "fdatasync", refused)
        writer.append(hit(2))
    writer.append(hit(3))
    assert [each.number for each in read_all(tmp_path)] == [1, 3]


def test_a_file_has_room_until_it_is_let_go(tmp_path: Path, roomy: None) -> None:
    writer, record = Spool(tmp_path), records.pack(hit(1))
    writer.append(hit(1))
    (of_spool,) = tail.files(tmp_path).values()
    read = tail.read(of_spool, 0)
    assert of_spool[0].size == reserved.ROOM_BYTES
    assert (len(read.hits), read.offset, read.skipped) == (1, len(record), 0)
    assert tail.read(of_spool, read.offset) == tail.Read([], read.offset), "nothing is written there yet"
    assert len(record) - 8 <= tail.backlog([of_spool], {}) <= len(record), "room is no backlog"
    writer.append(hit(2))
    assert [each.number for _, each in tail.read(of_spool, read.offset).hits] == [2]
    writer.close()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size == 2 * len(record)


def test_room_is_taken_piece_by_piece(tmp_path: Path, roomy: None) -> None:
    writer = Spool(tmp_path)
    hits = [hit(number, b"x" * (number % 500)) for number in range(400)]
    assert all(writer.append(each) for each in hits)
    assert read_all(tmp_path) == hits
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size - tail.backlog(tail.files(tmp_path).values(), {}) <= reserved.ROOM_BYTES


def test_where_no_room_is_left_records_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roomy: None
) -> None:
    """A disk that becomes full is used to its end, and by the same file."""
    writer, real = Spool(tmp_path), os.posix_fallocate
    hits = [hit(number) for number in range(1_000)]
    for each in hits[:10]:
        writer.append(each)

    def partly(fd: int, offset: int, length: int) -> None:
        real(fd, offset, length // 2)
        raise NO_SPACE

    monkeypatch.setattr(os, "posix_fallocate", partly)
    assert all(writer.append(each) for each in hits[10:])
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size == sum(len(records.pack(each)) for each in hits)
    assert read_all(tmp_path) == hits


def test_room_that_cannot_be_given_back_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roomy: None
) -> None:
    writer = Spool(tmp_path, rotate_bytes=300)
    with monkeypatch.context() as broken:
        broken.setattr(os, "ftruncate", refused)
        hits = [hit(number) for number in range(50)]
        assert all(writer.append(each) for each in hits)
        writer.close()
    assert read_all(tmp_path) == hits
    assert told(tmp_path) == (0, 0)


def test_a_full_disk_loses_only_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roomy: None) -> None:
    """The kernel refuses: a limit on the size of files, under which neither room nor a whole record fits."""
    monkeypatch.setattr(spool, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(spool.log, "error", lambda *_, **__: None)  # The limit holds for what is printed, too.
    reading, writing = os.pipe()

    def fill() -> None:
        writer, size = Spool(tmp_path), len(records.pack(hit(1)))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (reserved.ROOM_BYTES + 5 * size // 2, limits[1]))
        kept = [writer.append(hit(number)) for number in range(1, 1_000)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        writer.close()
        kept += [writer.append(hit(number)) for number in range(1_000, 1_010)]
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        kept.append(writer.append(hit(1_010)))
        os.write(writing, bytes(kept))

    pid = forked(fill)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        kept = list(pipe.read())
    assert os.waitpid(pid, 0)[1] == 0
    answered = [number for number, whether in enumerate(kept, 1) if whether]
    assert [each.number for each in read_all(tmp_path)] == answered
    assert len(kept) == 1_010
    assert told(tmp_path) == (kept.count(0), 0)
    assert kept.count(0) > 5


@pytest.mark.parametrize("seed", range(3 * int(os.environ.get("TORTURE", "1"))))
def test_whatever_was_kept_before_a_kill_is_read_once(tmp_path: Path, way: None, seed: int) -> None:
    """The reader reads beside the writer, through changes of room and file, until somebody kills the writer."""
    chance = random.Random(seed)
    reading, writing = os.pipe()

    def write() -> None:
        writer = Spool(tmp_path, rotate_bytes=100_000)
        for number in range(1_000_000):
            writer.append(hit(number, b"\xa7" * chance.randint(0, 400)))
            os.write(writing, b".")

    pid = forked(write)
    os.close(writing)
    found, offset, kept, enough = list[int](), 0, 0, chance.randint(1, 3_000)
    try:
        while kept < enough:
            kept += len(os.read(reading, chance.randint(1, 1_000)))
            for of_spool in tail.files(tmp_path).values():
                read = tail.read(of_spool, offset, chance.choice([1, 1 << 20]))
                assert (read.skipped, read.lost) == (0, 0)
                found, offset = found + [each.number for _, each in read.hits], read.offset
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as pipe:
        kept += len(pipe.read())
    (of_spool,) = tail.files(tmp_path).values()
    while (read := tail.read(of_spool, offset)).offset != offset:
        found, offset = found + [each.number for _, each in read.hits], read.offset
    assert found == list(range(len(found)))
    assert kept <= len(found) <= kept + 1


def test_a_record_without_its_first_byte_is_not_yet_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_AGE_BEFORE_DELETION", -1.0)
    record = records.pack(hit(1))
    within = records.pack(hit(2, record))
    (tmp_path / spool.file_name("a" * 32, 0)).write_bytes(record + b"\0" + record[1:] + bytes(5_000))
    (of_spool,) = tail.files(tmp_path).values()
    assert len(tail.read(of_spool, 0).hits) == 1
    assert tail.read(of_spool, len(record)) == tail.Read([], len(record))
    assert tail.delete_counted(of_spool, len(record)) == 1
    # What a stranger wrote into a report is no record of ours while its own isn't finished.
    with (path := tmp_path / spool.file_name("b" * 32, 0)).open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        path.write_bytes(b"\0" + within[1:] + bytes(5_000))
        (of_spool,) = tail.files(tmp_path).values()
        assert tail.read(of_spool, 0) == tail.Read([], 0)


def test_a_hole_left_by_a_power_cut_is_passed_over_when_nobody_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "_AGE_BEFORE_DELETION", -1.0)
    record, path = records.pack(hit(1)), tmp_path / spool.file_name("a" * 32, 0)
    path.write_bytes(bytes(4_096) + record + bytes(70_000))
    (of_spool,) = tail.files(tmp_path).values()
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert tail.read(of_spool, 0) == tail.Read([], 0), "its writer lives"
    assert tail.delete_counted(of_spool, 0) == 0
    read = tail.read(of_spool, 0)
    assert (len(read.hits), read.skipped, read.offset) == (1, 4_096, 4_096 + len(record))
    assert tail.delete_counted(of_spool, read.offset) == 1


def test_damage_is_looked_at_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another processor's writes may be seen in another order for a moment."""
    whole = b"".join(records.pack(hit(number)) for number in range(3))
    size = len(whole) // 3
    (tmp_path / spool.file_name("a" * 32, 0)).write_bytes(whole)
    (of_spool,) = tail.files(tmp_path).values()
    seen = iter([whole[: size + 9] + bytes(size - 9) + whole[2 * size :], whole])
    monkeypatch.setattr(tail, "_bytes", lambda *_: next(seen))
    read = tail.read(of_spool, 0)
    assert ([each.number for _, each in read.hits], read.skipped) == ([0, 1, 2], 0)


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


def test_an_idle_process_lets_go_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: None) -> None:
    monkeypatch.setattr(tail, "_AGE_BEFORE_DELETION", -1.0)
    writer = Spool(tmp_path, rotate_seconds=0.0)
    writer.append(hit(1))
    (of_spool,) = tail.files(tmp_path).values()
    assert tail.delete_counted(of_spool, of_spool[0].end) == 0, "its writer lives"
    writer.sync()
    (of_spool,) = tail.files(tmp_path).values()
    assert of_spool[0].size == len(records.pack(hit(1))), "and its room is given back"
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
