"""Room for what comes next in a file: reserved on its disk and mapped, so that writing is a copy in memory.

What is copied belongs to the page cache at once, as after ``write()``, and outlives the process. Where the
promise doesn't hold that a later store finds its place on the disk, there is no room to be had.
"""

import mmap
import os
from contextlib import suppress
from pathlib import Path

ROOM_BYTES = 1 << 20
_MOUNTS = Path("/proc/self/mountinfo")
_IN_PLACE = frozenset({"ext4", "xfs", "tmpfs"})
"""File systems on which a reserved block is written where it lies. Others copy on write, or ask somebody else: there
a full disk would end the process at a store (SIGBUS) instead of refusing a call."""


def reserved(fd: int, end: int) -> tuple[mmap.mmap, int]:
    """Room at the end of a file that is written up to ``end``, and where in it the first free byte is.

    The file grows by zeros. Raises OSError when there is no room; then it ends where it is written.
    """
    begin = end - end % mmap.ALLOCATIONGRANULARITY
    if not _writes_in_place(fd):
        raise OSError("no file system on which room can be reserved")
    try:
        os.posix_fallocate(fd, begin, ROOM_BYTES)
        return mmap.mmap(fd, ROOM_BYTES, offset=begin), end - begin
    except OSError:
        os.ftruncate(fd, end)  # A disk that became full gives a part.
        raise


def _writes_in_place(fd: int) -> bool:
    device = os.fstat(fd).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError):
        for line in _MOUNTS.read_text().splitlines():
            place, _, source = line.partition(" - ")
            if place.split()[2] == number:
                return source.split()[0] in _IN_PLACE
    return False
