"""The spool writer: an answered hit survives the process."""

import os
import random
import signal
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from tests.tracking.spool_helpers import fork_process, make_hit, read_all
from tracking.spool import preallocation, reader, record_codec, writer
from tracking.spool.writer import SpoolWriter


def test_hits_round_trip(tmp_path: Path, write_mode: None) -> None:
    writer = SpoolWriter(tmp_path)
    hits = [
        make_hit(1),
        make_hit(2, b""),
        make_hit(3, bytes(range(256)) + b"\xa7" * 244),
        make_hit(4)._replace(target=(1 << 62) + 5),
    ]
    assert all(writer.append(each) for each in hits)
    assert read_all(tmp_path) == hits


def test_offsets_continue_over_rotated_files(tmp_path: Path, write_mode: None) -> None:
    writer = SpoolWriter(tmp_path, rotate_bytes=300)
    hits = [make_hit(number) for number in range(50)]
    for each in hits:
        writer.append(each)
    (of_spool,) = reader.list_spools(tmp_path).values()
    assert len(of_spool) > 5
    assert all(one.end == other.start for one, other in pairwise(of_spool))
    assert read_all(tmp_path) == hits


def test_threads_share_a_spool(tmp_path: Path, write_mode: None) -> None:
    writer = SpoolWriter(tmp_path, rotate_bytes=30_000)

    def write(start: int) -> None:
        for number in range(start, start + 200):
            writer.append(make_hit(number))

    threads = [threading.Thread(target=write, args=(start,)) for start in range(0, 1_600, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.number for each in read_all(tmp_path)) == list(range(1_600))


def test_a_closed_file_is_truncated_to_its_records(tmp_path: Path, preallocated_writes: None) -> None:
    writer, record = SpoolWriter(tmp_path), record_codec.pack(make_hit(1))
    writer.append(make_hit(1))
    (of_spool,) = reader.list_spools(tmp_path).values()
    read = reader.read_chunk(of_spool, 0)
    assert of_spool[0].size == preallocation.PREALLOCATED_BYTES
    assert (len(read.hits), read.offset, read.skipped_bytes) == (1, len(record), 0)
    assert reader.read_chunk(of_spool, read.offset) == reader.ReadResult([], read.offset), (
        "nothing is written there yet"
    )
    assert len(record) - 8 <= reader.backlog_bytes([of_spool], {}) <= len(record), "reserved space is no backlog"
    writer.append(make_hit(2))
    assert [each.number for _, each in reader.read_chunk(of_spool, read.offset).hits] == [2]
    writer.close()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size == 2 * len(record)


def test_space_is_preallocated_in_pieces(tmp_path: Path, preallocated_writes: None) -> None:
    writer = SpoolWriter(tmp_path)
    hits = [make_hit(number, b"x" * (number % 500)) for number in range(400)]
    assert all(writer.append(each) for each in hits)
    assert read_all(tmp_path) == hits
    (path,) = tmp_path.iterdir()
    assert (
        path.stat().st_size - reader.backlog_bytes(reader.list_spools(tmp_path).values(), {})
        <= preallocation.PREALLOCATED_BYTES
    )


@pytest.mark.parametrize("seed", range(3 * int(os.environ.get("TORTURE", "1"))))
def test_hits_stored_before_a_kill_are_read_once(tmp_path: Path, write_mode: None, seed: int) -> None:
    """The reader runs beside the writer, across mappings and files, until the writer is killed."""
    chance = random.Random(seed)
    reading, writing = os.pipe()

    def write() -> None:
        writer = SpoolWriter(tmp_path, rotate_bytes=100_000)
        for number in range(1_000_000):
            writer.append(make_hit(number, b"\xa7" * chance.randint(0, 400)))
            os.write(writing, b".")

    pid = fork_process(write)
    os.close(writing)
    found, offset, kept, enough = list[int](), 0, 0, chance.randint(1, 3_000)
    try:
        while kept < enough:
            kept += len(os.read(reading, chance.randint(1, 1_000)))
            for of_spool in reader.list_spools(tmp_path).values():
                read = reader.read_chunk(of_spool, offset, chance.choice([1, 1 << 20]))
                assert (read.skipped_bytes, read.lost_hits) == (0, 0)
                found, offset = found + [each.number for _, each in read.hits], read.offset
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as pipe:
        kept += len(pipe.read())
    (of_spool,) = reader.list_spools(tmp_path).values()
    while (read := reader.read_chunk(of_spool, offset)).offset != offset:
        found, offset = found + [each.number for _, each in read.hits], read.offset
    assert found == list(range(len(found)))
    assert kept <= len(found) <= kept + 1


def test_a_forked_child_has_its_own_spool() -> None:
    mine = writer.spool_writer()
    assert writer.spool_writer() is mine
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, writer.spool_writer().name.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 100).decode() not in ("", mine.name)
    os.close(reading)
    os.close(writing)


def test_an_idle_process_closes_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_mode: None) -> None:
    monkeypatch.setattr(reader, "_MIN_AGE_SECONDS", -1.0)
    writer = SpoolWriter(tmp_path, rotate_seconds=0.0)
    writer.append(make_hit(1))
    (of_spool,) = reader.list_spools(tmp_path).values()
    assert reader.delete_counted(of_spool, of_spool[0].end) == 0, "its writer lives"
    writer.sync()
    (of_spool,) = reader.list_spools(tmp_path).values()
    assert of_spool[0].size == len(record_codec.pack(make_hit(1))), "and the reserved space is released"
    assert reader.delete_counted(of_spool, 0) == 0, "not counted yet"
    assert reader.delete_counted(of_spool, of_spool[0].end) == 1
    writer.append(make_hit(2))
    (of_spool,) = reader.list_spools(tmp_path).values()
    assert of_spool[0].start > 0
