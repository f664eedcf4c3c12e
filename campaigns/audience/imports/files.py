"""Storage of uploaded CSV files and their staging files under ``var/imports/``, with expiry."""

import os
import secrets
from pathlib import Path
from typing import IO

from campaigns import clock, config
from campaigns.errors import ValidationFailed, ValidationProblem
from campaigns.i18n import N_

MAX_UPLOAD_BYTES = 60 * 1024 * 1024
"""Bytes: about a million contacts with names. Must stay below the request limit of 64 MB."""
RETENTION_DAYS = 7
"""Afterwards rejected rows can no longer be downloaded: the file contains personal data, so it is not kept longer."""

_CHUNK_BYTES = 1 << 16


def directory() -> Path:
    path = config.settings().var / "imports"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def upload_path(content_key: str) -> Path:
    return directory() / f"{content_key}.csv"


def staging_path(content_key: str) -> Path:
    return directory() / f"{content_key}.staged"


def store_upload(stream: IO[bytes]) -> str:
    """Store an upload under a random name, readable by this account only, and return the name (content key).

    Raises ValidationFailed when the file is too large.
    """
    content_key = secrets.token_hex(16)
    path = upload_path(content_key)
    size = 0
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while chunk := stream.read(_CHUNK_BYTES):
            size += len(chunk)
            if size > MAX_UPLOAD_BYTES:
                break
            file.write(chunk)
    if size > MAX_UPLOAD_BYTES:
        path.unlink()
        message = N_("The file is larger than %(most)s MB. Split it and import the parts one after another.")
        raise ValidationFailed(ValidationProblem(message, field="file", params={"most": MAX_UPLOAD_BYTES >> 20}))
    return content_key


def delete_files(content_key: str) -> None:
    upload_path(content_key).unlink(missing_ok=True)
    delete_staging_files(content_key)


def delete_staging_files(content_key: str) -> None:
    staging_path(content_key).unlink(missing_ok=True)
    staging_path(content_key).with_suffix(".draft").unlink(missing_ok=True)


def delete_expired() -> int:
    """Delete files older than ``RETENTION_DAYS``; return their number."""
    oldest = clock.now().timestamp() - RETENTION_DAYS * 86400
    old = [path for path in directory().iterdir() if path.stat().st_mtime < oldest]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)
