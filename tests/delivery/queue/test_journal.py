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
    j.begin([7, 8, 9])
    j.mark(0, JournalStatus.OK)
    j.mark(1, JournalStatus.INTENT)
    print(j.batch, flush=True)
    time.sleep(60)
"""


def test_marks_survive_kill_nine(settings: config.Settings) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER], stdout=subprocess.PIPE, env={**os.environ, "KAMPANIA_VAR": str(settings.var)}
    )
    assert writer.stdout is not None
    batch = writer.stdout.readline().decode().strip()
    assert list(journal.orphans()) == []
    assert journal.living() == {batch}
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    (found,) = [(orphan.batch, orphan.marks()) for orphan in journal.orphans()]
    assert found == (batch, {7: JournalStatus.OK, 8: JournalStatus.INTENT, 9: JournalStatus.TODO})
    assert journal.living() == set()


def test_a_batch_without_recipients_yet_has_no_marks() -> None:
    BatchJournal.create().close()
    for orphan in journal.orphans():
        assert orphan.marks() == {}
        orphan.delete()
    assert list(journal.orphans()) == []


def test_a_half_written_file_has_no_marks() -> None:
    with BatchJournal.create() as made:
        made.begin([1, 2, 3])
        size = made.path.stat().st_size
        os.truncate(made.path, size - 1)
        assert made.marks() == {}


def test_sweep_removes_only_old_drafts() -> None:
    draft = journal.directory() / "x.new"
    draft.touch()
    journal.sweep()
    assert draft.exists()
    os.utime(draft, (1, 1))
    journal.sweep()
    assert not draft.exists()


def test_host_is_the_same_each_time() -> None:
    assert journal.host() == journal.host()


def test_a_damaged_mark_may_be_a_mail_that_left() -> None:
    with BatchJournal.create() as made:
        made.begin([1, 2])
        os.pwrite(made._descriptor, b"\xee", made.path.stat().st_size - 1)
        assert made.marks() == {1: JournalStatus.TODO, 2: JournalStatus.INTENT}
        made.delete()
