"""Where links lead, known on this host even while the database is away.

Memory first, then files under ``var/links`` that survive a restart and are shared by the processes
of a host, then the database. A launched activity's links never change, so its file is written once;
web processes and the collector look for new launches every few seconds.
"""

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from campaigns import config, db
from campaigns.accounts.models import Organisation
from campaigns.audience.models import Contact
from campaigns.capture.models import Form
from campaigns.content import links, merge
from campaigns.content.models import Link
from campaigns.delivery.models import Send
from campaigns.errors import Passing
from campaigns.language import N_
from campaigns.planning.models import Activity, Campaign

log = structlog.get_logger(__name__)

SYNC_SECONDS = 5.0
_REMEMBERED = 10_000
_UNKNOWN_FOR = 5.0  # A form that isn't there is asked for again after this many seconds.

Urls = Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Site:
    """What the whole house has in common."""

    hosts: frozenset[str]
    """Our own, in lower case."""
    forms: dict[str, int]
    """Activity by the slug of its landing page."""


class Destinations:
    """What one process knows of links, landing pages and our own hosts."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._of_activity: dict[int, Urls] = {}
        self._of_send: dict[int, Urls] = {}
        self._confirmed: set[tuple[int, int]] = set()
        self._site: Site | None = None
        self._missing: dict[str, float] = {}

    def url(self, send_id: int, number: int) -> str | None:
        """The destination of a link as written, merge fields inside; None when there is no such link.

        Raises Passing when this host doesn't know it and the database is away.
        """
        activity_id = send_id >> 32
        urls = self._of_activity.get(activity_id) or self._of_send.get(send_id)
        if urls is None:
            urls = self._from_disk(activity_id)
        if urls is None:
            urls = self._from_database(send_id)
        return urls.get(number)

    def landing_page(self, slug: str) -> int | None:
        """The activity of a landing page; None when there is none, or when nobody can tell."""
        activity_id = self.site().forms.get(slug)
        if activity_id is None and self._missing.get(slug, 0) < time.monotonic():
            try:
                with db.reading() as session:
                    activity_id = session.scalar(select(Form.activity_id).where(Form.slug == slug))
            except SQLAlchemyError:
                return None
            if activity_id is not None:
                self.site().forms[slug] = activity_id
            elif len(self._missing) < _REMEMBERED:
                self._missing[slug] = time.monotonic() + _UNKNOWN_FOR
            else:
                self._missing.clear()
        return activity_id

    def site(self) -> Site:
        """Our own hosts and landing pages as last seen; none at all before the first sight."""
        if self._site is None:
            try:
                kept = json.loads((self._directory / "site.json").read_bytes())
                self._site = Site(links.own_hosts(kept["own_hosts"]), dict(kept["forms"]))
            except (OSError, ValueError, KeyError, TypeError):
                self._site = Site(links.own_hosts(()), {})
                try:
                    with db.reading() as session:
                        self._sync_site(session)
                except SQLAlchemyError:
                    pass
        return self._site

    def sync(self) -> None:
        """Learn what was launched since the last time. Raises SQLAlchemyError, OSError."""
        with db.reading() as session:
            self._sync_site(session)
            launched = session.execute(
                select(Activity.id, Activity.version_id).where(
                    Activity.version_id.is_not(None), Activity.built_in.is_(None)
                )
            )
            for activity_id, version_id in launched:
                if (activity_id, version_id) not in self._confirmed:
                    self._learn(activity_id, _links(session, version_id))
                    self._confirmed.add((activity_id, int(version_id or 0)))

    def _learn(self, activity_id: int, urls: Urls) -> None:
        self._of_activity[activity_id] = urls
        if urls != self._from_disk(activity_id):
            self._keep(f"{activity_id}.json", {str(number): url for number, url in urls.items()})

    def _sync_site(self, session: Session) -> None:
        hosts = session.scalar(select(Organisation.own_hosts).limit(1)) or []
        forms = dict(session.execute(select(Form.slug, Form.activity_id)).all())
        site = Site(links.own_hosts(hosts), forms)
        if site != self._site:
            self._site = site
            self._keep("site.json", {"own_hosts": hosts, "forms": forms})

    def _from_disk(self, activity_id: int) -> Urls | None:
        try:
            kept = json.loads((self._directory / f"{activity_id}.json").read_bytes())
            urls = {int(number): str(url) for number, url in kept.items()}
        except (OSError, ValueError, AttributeError):
            return None
        self._of_activity.setdefault(activity_id, urls)
        return urls

    def _from_database(self, send_id: int) -> Urls:
        activity_id = send_id >> 32
        try:
            with db.reading() as session:
                activity = session.get(Activity, activity_id)
                if activity is not None and activity.version_id is not None and activity.built_in is None:
                    urls = _links(session, activity.version_id)
                    self._learn(activity_id, urls)
                    return urls
                send = session.get(Send, send_id)
                urls = {} if send is None or send.version_id is None else _links(session, send.version_id)
        except SQLAlchemyError as error:
            raise Passing(N_("This link cannot be followed just now. Please try again in a minute.")) from error
        if urls:
            if len(self._of_send) >= _REMEMBERED:
                self._of_send.clear()
            self._of_send[send_id] = urls
        return urls

    def _keep(self, name: str, content: object) -> None:
        """Put a file in place, whole or not at all; a disk that refuses costs only the next restart."""
        draft = self._directory / f"{name}.{os.getpid()}.{threading.get_ident()}"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_text(json.dumps(content))
            draft.replace(self._directory / name)
        except OSError as error:
            log.error("destinations.not_kept", file=name, error=str(error))


def _links(session: Session, version_id: int | None) -> Urls:
    return dict(session.execute(select(Link.number, Link.url).where(Link.version_id == version_id)).all())


def personalised(url: str, send_id: int) -> str:
    """``url`` with the recipient's merge fields; with none of them while the database is away.

    Raises Invalid when the outcome is no destination.
    """
    if "{{" not in url:
        return url
    fields: Mapping[str, object] = {}
    try:
        with db.reading() as session:
            fields = _fields(session, send_id)
    except SQLAlchemyError as error:
        log.warning("destinations.unpersonalised", error=str(error)[:200])
    return links.personalise(url, fields)


def _fields(session: Session, send_id: int) -> Mapping[str, object]:
    row = session.execute(
        select(Contact, Campaign.name)
        .select_from(Send)
        .join(Activity, Activity.id == Send.activity_id)
        .join(Campaign, Campaign.id == Activity.campaign_id)
        .join(Contact, Contact.id == Send.contact_id)
        .where(Send.id == send_id)
    ).one_or_none()
    organisation = session.get(Organisation, 1)
    if row is None or organisation is None:
        return {}
    return merge.fields_of(row[0], row[1], organisation)


_made: tuple[config.Settings, Destinations] | None = None


def destinations() -> Destinations:
    """What this process knows, for its settings."""
    global _made
    settings = config.settings()
    if _made is None or _made[0] is not settings:
        _made = (settings, Destinations(settings.var / "links"))
    return _made[1]


def sync() -> None:
    """Learn what was launched since the last time. Raises SQLAlchemyError, OSError."""
    destinations().sync()


_syncing = 0


def keep_synced() -> None:
    """Sync every few seconds in a thread of this process; called again it does nothing."""
    global _syncing
    if _syncing != os.getpid():
        _syncing = os.getpid()
        threading.Thread(target=_sync_forever, name="destinations-sync", daemon=True).start()


def _sync_forever() -> None:
    while True:
        try:
            sync()
        except (SQLAlchemyError, OSError) as error:
            log.warning("destinations.not_synced", error=str(error)[:200])
        time.sleep(SYNC_SECONDS)
