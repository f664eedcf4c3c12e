"""Where uploaded files lie, and for how long."""

import os
import secrets
from pathlib import Path
from typing import IO

from campaigns import clock, config
from campaigns.errors import ValidationFailed, ValidationProblem
from campaigns.i18n import N_

LARGEST = 60 * 1024 * 1024
"""Bytes: about a million contacts with names. The frame refuses requests above 64 MB."""
KEPT_DAYS = 7
"""After that the rejected rows can't be downloaded any more: the file holds people's data."""

_PIECE = 1 << 16


def directory() -> Path:
    path = config.settings().var / "imports"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def path_of(content_key: str) -> Path:
    return directory() / f"{content_key}.csv"


def stage_of(content_key: str) -> Path:
    return directory() / f"{content_key}.staged"


def keep(stream: IO[bytes]) -> str:
    """Write an upload down under a random name that only this account can read. Raises Invalid when too large."""
    content_key = secrets.token_hex(16)
    path = path_of(content_key)
    size = 0
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while piece := stream.read(_PIECE):
            size += len(piece)
            if size > LARGEST:
                break
            file.write(piece)
    if size > LARGEST:
        path.unlink()
        message = N_("The file is larger than %(most)s MB. Split it and import the parts one after another.")
        raise ValidationFailed(ValidationProblem(message, field="file", params={"most": LARGEST >> 20}))
    return content_key


def forget(content_key: str) -> None:
    path_of(content_key).unlink(missing_ok=True)
    forget_stage(content_key)


def forget_stage(content_key: str) -> None:
    stage_of(content_key).unlink(missing_ok=True)
    stage_of(content_key).with_suffix(".draft").unlink(missing_ok=True)


def sweep() -> int:
    """Remove what is older than KEPT_DAYS; how many files went."""
    oldest = clock.now().timestamp() - KEPT_DAYS * 86400
    old = [path for path in directory().iterdir() if path.stat().st_mtime < oldest]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)
