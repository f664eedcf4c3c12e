"""The spool writer: an answered hit survives the process."""

import os
import random
import signal
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from tests.tracking.spool_helpers import forked, hit, read_all
from tracking.spool import preallocation, reader, record_codec, writer
from tracking.spool.writer import SpoolWriter


def test_a_hit_is_read_back_as_it_was(tmp_path: Path, way: None) -> None:
    writer = SpoolWriter(tmp_path)
    hits = [hit(1), hit(2, b""), hit(3, bytes(range(256)) + b"\xa7" * 244), hit(4)._replace(target=(1 << 62) + 5)]
    assert all(writer.append(each) for each in hits)
    assert read_all(tmp_path) == hits


def test_files_follow_each_other_and_offsets_count_on(tmp_path: Path, way: None) -> None:
    writer = SpoolWriter(tmp_path, rotate_bytes=300)
    hits = [hit(number) for number in range(50)]
    for each in hits:
        writer.append(each)
    (of_spool,) = reader.files(tmp_path).values()
    assert len(of_spool) > 5
    assert all(one.end == other.start for one, other in pairwise(of_spool))
    assert read_all(tmp_path) == hits


def test_threads_share_a_spool(tmp_path: Path, way: None) -> None:
    writer = SpoolWriter(tmp_path, rotate_bytes=30_000)

    def write(start: int) -> None:
        for number in range(start, start + 200):
            writer.append(hit(number))

    threads = [threading.Thread(target=write, args=(start,)) for start in range(0, 1_600, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.number for each in read_all(tmp_path)) == list(range(1_600))


def test_a_file_has_room_until_it_is_let_go(tmp_path: Path, roomy: None) -> None:
    writer, record = SpoolWriter(tmp_path), record_codec.pack(hit(1))
    writer.append(hit(1))
    (of_spool,) = reader.files(tmp_path).values()
    read = reader.read(of_spool, 0)
    assert of_spool[0].size == preallocation.ROOM_BYTES
    assert (len(read.hits), read.offset, read.skipped) == (1, len(record), 0)
    assert reader.read(of_spool, read.offset) == reader.ReadResult([], read.offset), "nothing is written there yet"
    assert len(record) - 8 <= reader.backlog([of_spool], {}) <= len(record), "room is no backlog"
    writer.append(hit(2))
    assert [each.number for _, each in reader.read(of_spool, read.offset).hits] == [2]
    writer.close()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size == 2 * len(record)


def test_room_is_taken_piece_by_piece(tmp_path: Path, roomy: None) -> None:
    writer = SpoolWriter(tmp_path)
    hits = [hit(number, b"x" * (number % 500)) for number in range(400)]
    assert all(writer.append(each) for each in hits)
    assert read_all(tmp_path) == hits
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size - reader.backlog(reader.files(tmp_path).values(), {}) <= preallocation.ROOM_BYTES


@pytest.mark.parametrize("seed", range(3 * int(os.environ.get("TORTURE", "1"))))
def test_whatever_was_kept_before_a_kill_is_read_once(tmp_path: Path, way: None, seed: int) -> None:
    """The reader runs beside the writer, across mappings and files, until the writer is killed."""
    chance = random.Random(seed)
    reading, writing = os.pipe()

    def write() -> None:
        writer = SpoolWriter(tmp_path, rotate_bytes=100_000)
        for number in range(1_000_000):
            writer.append(hit(number, b"\xa7" * chance.randint(0, 400)))
            os.write(writing, b".")

    pid = forked(write)
    os.close(writing)
    found, offset, kept, enough = list[int](), 0, 0, chance.randint(1, 3_000)
    try:
        while kept < enough:
            kept += len(os.read(reading, chance.randint(1, 1_000)))
            for of_spool in reader.files(tmp_path).values():
                read = reader.read(of_spool, offset, chance.choice([1, 1 << 20]))
                assert (read.skipped, read.lost) == (0, 0)
                found, offset = found + [each.number for _, each in read.hits], read.offset
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as pipe:
        kept += len(pipe.read())
    (of_spool,) = reader.files(tmp_path).values()
    while (read := reader.read(of_spool, offset)).offset != offset:
        found, offset = found + [each.number for _, each in read.hits], read.offset
    assert found == list(range(len(found)))
    assert kept <= len(found) <= kept + 1


def test_a_forked_child_writes_a_spool_of_its_own() -> None:
    mine = writer.spool()
    assert writer.spool() is mine
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, writer.spool().name.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 100).decode() not in ("", mine.name)
    os.close(reading)
    os.close(writing)


def test_an_idle_process_lets_go_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: None) -> None:
    monkeypatch.setattr(reader, "_AGE_BEFORE_DELETION", -1.0)
    writer = SpoolWriter(tmp_path, rotate_seconds=0.0)
    writer.append(hit(1))
    (of_spool,) = reader.files(tmp_path).values()
    assert reader.delete_counted(of_spool, of_spool[0].end) == 0, "its writer lives"
    writer.sync()
    (of_spool,) = reader.files(tmp_path).values()
    assert of_spool[0].size == len(record_codec.pack(hit(1))), "and its room is given back"
    assert reader.delete_counted(of_spool, 0) == 0, "not counted yet"
    assert reader.delete_counted(of_spool, of_spool[0].end) == 1
    writer.append(hit(2))
    (of_spool,) = reader.files(tmp_path).values()
    assert of_spool[0].start > 0
