"""Tests of the batch journal: it survives its process, and only journals of dead owners are orphans."""

import os
import signal
import subprocess
import sys

from campaigns import config
from campaigns.delivery.queue import journal
from campaigns.delivery.queue.journal import BatchJournal, JournalStatus

WRITER = """
import sys, time
from campaigns.delivery.queue.journal import BatchJournal, JournalStatus
with BatchJournal.create() as j:
    j.write_ids([7, 8, 9])
    j.set_status(0, JournalStatus.OK)
    j.set_status(1, JournalStatus.INTENT)
    print(j.batch, flush=True)
    time.sleep(60)
"""


def test_statuses_survive_sigkill(settings: config.Settings) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER], stdout=subprocess.PIPE, env={**os.environ, "KAMPANIA_VAR": str(settings.var)}
    )
    assert writer.stdout is not None
    batch = writer.stdout.readline().decode().strip()
    assert list(journal.orphans()) == []
    assert journal.live_batches() == {batch}
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    (found,) = [(orphan.batch, orphan.statuses()) for orphan in journal.orphans()]
    assert found == (batch, {7: JournalStatus.OK, 8: JournalStatus.INTENT, 9: JournalStatus.TODO})
    assert journal.live_batches() == set()


def test_batch_without_ids_has_no_statuses() -> None:
    BatchJournal.create().close()
    for orphan in journal.orphans():
        assert orphan.statuses() == {}
        orphan.delete()
    assert list(journal.orphans()) == []


def test_truncated_file_has_no_statuses() -> None:
    with BatchJournal.create() as made:
        made.write_ids([1, 2, 3])
        size = made.path.stat().st_size
        os.truncate(made.path, size - 1)
        assert made.statuses() == {}


def test_sweep_removes_only_old_drafts() -> None:
    draft = journal.directory() / "x.new"
    draft.touch()
    journal.delete_stale_drafts()
    assert draft.exists()
    os.utime(draft, (1, 1))
    journal.delete_stale_drafts()
    assert not draft.exists()


def test_host_id_is_stable() -> None:
    assert journal.host_id() == journal.host_id()


def test_damaged_status_counts_as_intent() -> None:
    with BatchJournal.create() as made:
        made.write_ids([1, 2])
        os.pwrite(made._descriptor, b"\xee", made.path.stat().st_size - 1)
        assert made.statuses() == {1: JournalStatus.TODO, 2: JournalStatus.INTENT}
        made.delete()
