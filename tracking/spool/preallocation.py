"""Preallocated, memory-mapped space at the end of a spool file, so that writing a record is a copy in memory.

Copied bytes belong to the page cache at once, as after ``write()``, and survive the death of the process. Space is
preallocated only on file systems where a later store is certain to find its block; elsewhere a store on a full disk
raises SIGBUS and kills the process.
"""

import mmap
import os
from contextlib import suppress
from pathlib import Path

PREALLOCATED_BYTES = 1 << 20
_MOUNTINFO = Path("/proc/self/mountinfo")
_IN_PLACE_FILE_SYSTEMS = frozenset({"ext4", "xfs", "tmpfs"})
"""File systems that write a preallocated block in place. Copy-on-write and network file systems allocate at the store:
there a full disk would end the process with SIGBUS instead of failing a call.
"""


def preallocate(fd: int, end: int) -> tuple[mmap.mmap, int]:
    """Preallocate and map space at the end of a file whose records end at ``end``. Returns the mapping and the position
    of the first free byte in it.

    The file grows by zeros. Raises OSError when no space can be preallocated; the file then still ends at ``end``.
    """
    begin = end - end % mmap.ALLOCATIONGRANULARITY
    if not _writes_in_place(fd):
        raise OSError("no file system on which space can be reserved")
    try:
        os.posix_fallocate(fd, begin, PREALLOCATED_BYTES)
        return mmap.mmap(fd, PREALLOCATED_BYTES, offset=begin), end - begin
    except OSError:
        os.ftruncate(fd, end)  # fallocate on a disk that fills up may leave a part of the range allocated.
        raise


def _writes_in_place(fd: int) -> bool:
    device = os.fstat(fd).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError):
        for line in _MOUNTINFO.read_text().splitlines():
            mount, _, source = line.partition(" - ")
            if mount.split()[2] == number:
                return source.split()[0] in _IN_PLACE_FILE_SYSTEMS
    return False
