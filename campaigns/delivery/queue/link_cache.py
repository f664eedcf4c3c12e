"""Link target cache: files on this host that map link numbers to URLs, written before a mail is sent.

The click endpoint on the same host reads them when the database is unavailable, also after a restart. Files under
``var/links``:

``<activity>.json``    link number → URL of a launched activity, with the overrides made before the file was written
``version-<id>.json``  link number → URL of a message version that single mails use (test mails, transactional mails)
``<activity>.sends``   version id of each single mail: 8 bytes, little endian, at sequence number × 8
"""

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import config
from campaigns.content.models import Link
from campaigns.delivery.queue.payload import BatchPayload
from campaigns.planning.models import LinkOverride

log = structlog.get_logger(__name__)

Urls = Mapping[int, str]
_ENTRY_BYTES = 8
_SEQUENCE_MASK = 0xFFFFFFFF


def cache_links(session: Session, payload: BatchPayload) -> None:
    """Write the link files of a batch before its mails are sent. A disk error is logged; the database has the links."""
    activity = payload.context.activity
    try:
        if activity.built_in is not None:
            cache_single_links(
                session, {send.id: send.version_id for send in payload.sends if send.version_id is not None}
            )
        elif activity.email.version_id is not None and not _activity_path(activity.id).exists():
            urls = {
                **links_of_version(session, activity.email.version_id),
                **link_overrides(session, activity.id).get(activity.id, {}),
            }
            write_json(_activity_path(activity.id).name, urls, new=True)
    except OSError as error:
        log.error("link_cache.write_failed", activity=activity.id, error=str(error))


def cache_single_links(session: Session, versions: Mapping[int, int]) -> None:
    """Write the link files of single mails; ``versions`` maps send id → version id. Raises OSError."""
    for version_id in set(versions.values()):
        if not _version_path(version_id).exists():
            write_json(_version_path(version_id).name, links_of_version(session, version_id), new=True)
    for send_id, version_id in versions.items():
        descriptor = os.open(_version_index_path(send_id >> 32), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(
                descriptor, version_id.to_bytes(_ENTRY_BYTES, "little"), (send_id & _SEQUENCE_MASK) * _ENTRY_BYTES
            )
        finally:
            os.close(descriptor)


def links_for_activity(activity_id: int) -> Urls | None:
    """Link number → URL of a launched activity; None when this host has no file of it."""
    return _read_links(_activity_path(activity_id))


def links_for_send(send_id: int) -> Urls | None:
    """Link number → URL of one single mail; None when this host has no file of it."""
    try:
        descriptor = os.open(_version_index_path(send_id >> 32), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        version_id = int.from_bytes(
            os.pread(descriptor, _ENTRY_BYTES, (send_id & _SEQUENCE_MASK) * _ENTRY_BYTES), "little"
        )
    finally:
        os.close(descriptor)
    return _read_links(_version_path(version_id)) if version_id else None


def links_of_version(session: Session, version_id: int) -> Urls:
    """Link number → URL of a message version, from the database."""
    return dict(session.execute(select(Link.number, Link.url).where(Link.version_id == version_id)).all())


def link_overrides(session: Session, *activity_ids: int) -> dict[int, dict[int, str]]:
    """Link overrides of sent mails: activity id → link number → URL. Without ``activity_ids``: of all activities."""
    query = select(LinkOverride.activity_id, LinkOverride.number, LinkOverride.url)
    overrides: dict[int, dict[int, str]] = {}
    for activity_id, number, url in session.execute(
        query.where(LinkOverride.activity_id.in_(activity_ids)) if activity_ids else query
    ):
        overrides.setdefault(activity_id, {})[number] = url
    return overrides


def directory() -> Path:
    return config.settings().var / "links"


def write_json(name: str, content: Mapping[Any, object], *, new: bool = False) -> None:
    """Write ``content`` as JSON atomically. With ``new`` an existing file is not replaced. Raises OSError."""
    directory().mkdir(mode=0o700, parents=True, exist_ok=True)
    draft_path = directory() / f"{name}.{os.getpid()}.{threading.get_ident()}"
    draft_path.write_text(json.dumps(content))
    if not new:
        draft_path.replace(directory() / name)
        return
    try:
        (directory() / name).hardlink_to(draft_path)
    except FileExistsError:
        pass  # Another process wrote the file first; it may contain a newer override.
    finally:
        draft_path.unlink()


def _read_links(path: Path) -> Urls | None:
    try:
        return {int(number): str(url) for number, url in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, AttributeError):
        return None


def _activity_path(activity_id: int) -> Path:
    return directory() / f"{activity_id}.json"


def _version_path(version_id: int) -> Path:
    return directory() / f"version-{version_id}.json"


def _version_index_path(activity_id: int) -> Path:
    return directory() / f"{activity_id}.sends"
