"""The spool reader: files that are being written, finished and damaged."""

import fcntl
import time
from pathlib import Path

import pytest

from tests.tracking.spool_helpers import make_hit, read_all
from tracking.collector import collector
from tracking.spool import reader, record_codec
from tracking.spool import writer as spool_writer
from tracking.spool.writer import SpoolWriter


@pytest.mark.parametrize("cut", [1, 7, 8, 20, 44])
def test_a_torn_record_is_skipped_once_a_later_file_exists(tmp_path: Path, cut: int) -> None:
    record = record_codec.pack(make_hit(1))
    path = tmp_path / spool_writer.file_name("a" * 32, 0)
    path.write_bytes(record + record_codec.pack(make_hit(2))[:-cut])
    (of_spool,) = reader.list_spools(tmp_path).values()
    read = reader.read_chunk(of_spool, 0)
    assert (len(read.hits), read.offset, read.skipped_bytes) == (1, len(record), 0)
    torn = path.stat().st_size - len(record)
    (tmp_path / spool_writer.file_name("a" * 32, path.stat().st_size)).write_bytes(record_codec.pack(make_hit(3)))
    (of_spool,) = reader.list_spools(tmp_path).values()
    read = reader.read_chunk(of_spool, len(record))
    assert (read.hits, read.skipped_bytes) == ([], torn)
    assert [each.number for _, each in reader.read_chunk(of_spool, read.offset).hits] == [3]


def test_only_damaged_records_are_lost(tmp_path: Path) -> None:
    parts = [record_codec.pack(make_hit(number)) for number in range(5)]
    parts[2] = b"\xa7" * len(parts[2])
    (tmp_path / spool_writer.file_name("a" * 32, 0)).write_bytes(b"".join(parts))
    (of_spool,) = reader.list_spools(tmp_path).values()
    read = reader.read_chunk(of_spool, 0)
    assert [each.number for _, each in read.hits] == [0, 1, 3, 4]
    assert read.skipped_bytes == len(parts[2])


def test_a_damaged_chunk_does_not_stop_the_reader(tmp_path: Path) -> None:
    (tmp_path / spool_writer.file_name("a" * 32, 0)).write_bytes(
        b"\xa7\x30\x00" * 20_000 + record_codec.pack(make_hit(9))
    )
    (of_spool,) = reader.list_spools(tmp_path).values()
    offset, found = 0, []
    while (read := reader.read_chunk(of_spool, offset, 4_000)).offset != offset:
        offset = read.offset
        found += read.hits
    assert [each.number for _, each in found] == [9]


@pytest.mark.parametrize("name", ["x.spool", "a" * 32 + "-xyz" + "0" * 13 + ".spool", "a" * 32 + ".spool", "readme"])
def test_foreign_files_are_ignored(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("hello")
    assert reader.list_spools(tmp_path) == {}


def test_a_record_without_its_first_byte_is_not_yet_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_MIN_AGE_SECONDS", -1.0)
    record = record_codec.pack(make_hit(1))
    within = record_codec.pack(make_hit(2, record))
    (tmp_path / spool_writer.file_name("a" * 32, 0)).write_bytes(record + b"\0" + record[1:] + bytes(5_000))
    (of_spool,) = reader.list_spools(tmp_path).values()
    assert len(reader.read_chunk(of_spool, 0).hits) == 1
    assert reader.read_chunk(of_spool, len(record)) == reader.ReadResult([], len(record))
    assert reader.delete_counted(of_spool, len(record)) == 1
    # A report body that contains a record must not be read as one while its own record is incomplete.
    with (path := tmp_path / spool_writer.file_name("b" * 32, 0)).open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        path.write_bytes(b"\0" + within[1:] + bytes(5_000))
        (of_spool,) = reader.list_spools(tmp_path).values()
        assert reader.read_chunk(of_spool, 0) == reader.ReadResult([], 0)


def test_a_hole_left_by_a_power_cut_is_skipped_without_a_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_MIN_AGE_SECONDS", -1.0)
    record, path = record_codec.pack(make_hit(1)), tmp_path / spool_writer.file_name("a" * 32, 0)
    path.write_bytes(bytes(4_096) + record + bytes(70_000))
    (of_spool,) = reader.list_spools(tmp_path).values()
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert reader.read_chunk(of_spool, 0) == reader.ReadResult([], 0), "its writer lives"
    assert reader.delete_counted(of_spool, 0) == 0
    read = reader.read_chunk(of_spool, 0)
    assert (len(read.hits), read.skipped_bytes, read.offset) == (1, 4_096, 4_096 + len(record))
    assert reader.delete_counted(of_spool, read.offset) == 1


def test_damage_is_read_twice_before_it_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores of another processor may become visible in a different order for a moment."""
    whole = b"".join(record_codec.pack(make_hit(number)) for number in range(3))
    size = len(whole) // 3
    (tmp_path / spool_writer.file_name("a" * 32, 0)).write_bytes(whole)
    (of_spool,) = reader.list_spools(tmp_path).values()
    seen = iter([whole[: size + 9] + bytes(size - 9) + whole[2 * size :], whole])
    monkeypatch.setattr(reader, "_read_bytes", lambda *_: next(seen))
    read = reader.read_chunk(of_spool, 0)
    assert ([each.number for _, each in read.hits], read.skipped_bytes) == ([0, 1, 2], 0)


def test_a_file_with_a_torn_record_of_a_dead_writer_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_MIN_AGE_SECONDS", -1.0)
    record = record_codec.pack(make_hit(1))
    (tmp_path / spool_writer.file_name("a" * 32, 0)).write_bytes(record + record[:-3])
    (of_spool,) = reader.list_spools(tmp_path).values()
    assert reader.delete_counted(of_spool, 0) == 0
    assert reader.delete_counted(of_spool, len(record)) == 1


def test_collected_files_are_deleted_within_a_day_despite_clock_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running writer closes its file after an hour; counted files are then deleted."""
    writer = SpoolWriter(tmp_path)
    writer.append(make_hit(1))
    (busy,) = reader.list_spools(tmp_path).values()
    real, ticking, day = time.time, time.monotonic, 24 * 3600
    for moved in (+day, -day):  # The system clock changes after the file was written.
        monkeypatch.setattr(time, "time", lambda moved=moved: real() + moved)
        assert reader.delete_counted(busy, busy[0].end) == 0, "its writer lives"
    with monkeypatch.context() as hours_later:
        hours_later.setattr(time, "monotonic", lambda: ticking() + spool_writer.ROTATE_SECONDS + 1)
        writer.sync()
    for moved, deleted in ((0, 0), (-day, 1)):
        monkeypatch.setattr(time, "time", lambda moved=moved: real() + moved)
        assert reader.delete_counted(busy, busy[0].end) == deleted
    writer.append(make_hit(2))
    assert [each.number for each in read_all(tmp_path)] == [2], "and it writes on"
    assert day > spool_writer.ROTATE_SECONDS + reader._MIN_AGE_SECONDS + collector.CLEANUP_SECONDS
