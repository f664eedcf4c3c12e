"""Link target cache: redirect targets that stay available on this host while the database is down.

Lookup order: memory, then files under ``var/links``, then the database. The files survive a restart and are shared by
all processes of a host. A worker writes them before the first mail of a batch is sent
(:mod:`campaigns.delivery.queue.link_cache`). Web processes and the collector poll the database every second for
launches, new short links, changed targets and links that were switched off.

Invented ids and codes must not cost a query each: an unknown send is looked up once and cached as missing for a few
seconds, in a bounded cache.
"""

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from campaigns import config, db
from campaigns.accounts.models import Organisation
from campaigns.audience.models import Contact
from campaigns.capture.models import Form
from campaigns.content.rendering import links, renderer
from campaigns.delivery.models import Send
from campaigns.delivery.queue import link_cache
from campaigns.delivery.queue.link_cache import Urls
from campaigns.errors import TemporaryError
from campaigns.i18n import N_
from campaigns.outbox import OutboxMail, fields_of
from campaigns.planning import utm
from campaigns.planning.models import Activity, Campaign, EmailDetails, ShortLink
from campaigns.web.fast_path import Answer

log = structlog.get_logger(__name__)

SYNC_SECONDS = 1.0
OFF = ""
"""Value in place of a URL: the link was switched off."""
_REMEMBERED = 10_000
_UNKNOWN_FOR = 5.0  # Seconds before a send that was not found is looked up again.
_LOOK_AGAIN = 1.0  # Minimum seconds between two reloads caused by unknown codes or pages.

# Activities that are only scheduled are left out: their links may still change, and none of their mails was sent.
_LAUNCHED = (
    select(Activity.id, func.coalesce(EmailDetails.version_id, 0).label("version_id"))
    .join(EmailDetails)
    .where(EmailDetails.version_id.is_not(None), Activity.launched_at.is_not(None), Activity.built_in.is_(None))
)


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """Configuration shared by all links of the installation."""

    hosts: frozenset[str]
    """Host names that the organisation declares its own, in lower case."""
    forms: dict[str, int]
    """Activity id by the slug of its landing page."""


class ShortLinkTarget(NamedTuple):
    """Target of a short link: the URL with UTM parameters, or SWITCHED_OFF, and the activity that its clicks are
    counted for.
    """

    activity_id: int
    number: int
    url: str


class LinkTarget(NamedTuple):
    """Prebuilt answer to a click on one link, built by the redirect endpoint and dropped by the cache when a link
    changes. The number is that of the link.
    """

    number: int
    answer: Answer
    visit: tuple[str, str] | None
    """For a page on an own host: the URL before and after the visit token, which differs for each recipient."""


class LinkTargetCache:
    """Links, landing pages and own hosts known to one process."""

    def __init__(self) -> None:
        self.ways: dict[tuple[int, str], LinkTarget] = {}
        """Answers by (activity id, link number as written in the URL). Replaced by an empty dictionary after each
        change.
        """
        self._of_activity: dict[int, Urls] = {}
        self._of_send: dict[int, Urls] = {}
        self._confirmed: dict[int, tuple[int, Urls]] = {}
        self._site: SiteConfig | None = None
        self._shorts: dict[str, ShortLinkTarget] | None = None
        self._shorts_as_of: object = None
        self._missing: dict[int, float] = {}
        self._look_at = 0.0
        self._away_until = 0.0

    def url(self, send_id: int, number: int) -> str | None:
        """The target of a link, with merge fields not yet replaced; SWITCHED_OFF when the link was switched off; None
        when there is no such link.

        Raises TemporaryError when the link is unknown on this host and the database is down.
        """
        urls = self._of_activity.get(send_id >> 32)
        if urls is None:
            urls = self._of_send.get(send_id)
        if urls is None:
            urls = self._from_disk(send_id)
        if urls is None:
            urls = self._from_database(send_id)
        return urls.get(number)

    def is_common(self, send_id: int) -> bool:
        """Whether all sends of the activity have the same links, so that an answer can be cached per activity."""
        return send_id >> 32 in self._of_activity

    def short(self, code: str) -> ShortLinkTarget | None:
        """The target of a short link; None when there is no such link. Raises TemporaryError like :meth:`url`."""
        code = code.lower()  # The code may be typed from a printed page.
        if self._shorts is None:
            self._shorts = self._shorts_from_disk()
        link = (self._shorts or {}).get(code)
        if link is None and self._look_again():
            link = (self._shorts or {}).get(code)
        if link is None and self._shorts is None:
            raise TemporaryError(_LATER)
        return link

    def landing_page(self, slug: str) -> int | None:
        """The activity id of a landing page; None when there is no such page or the database is down."""
        activity_id = self.site().forms.get(slug)
        if activity_id is None and self._look_again():
            activity_id = self.site().forms.get(slug)
        return activity_id

    def _look_again(self) -> bool:
        """Reload pages and short links from the database, at most once a second. False when not due or when the
        database is down.
        """
        if time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + _LOOK_AGAIN
        try:
            with db.reading() as session:
                self._sync_site(session)
                self._sync_shorts(session)
        except SQLAlchemyError:
            return False
        return True

    def site(self) -> SiteConfig:
        """Own hosts and landing pages as last loaded, from memory, disk or database; without landing pages when all
        three fail.
        """
        if self._site is None:
            try:
                kept = json.loads((link_cache.directory() / "site.json").read_bytes())
                self._site = SiteConfig(links.own_hosts(kept["own_hosts"]), dict(kept["forms"]))
            except (OSError, ValueError, KeyError, TypeError):
                self._site = SiteConfig(links.own_hosts(()), {})
                try:
                    with db.reading() as session:
                        self._sync_site(session)
                except SQLAlchemyError:
                    pass
        return self._site

    def sync(self) -> None:
        """Load what was launched or changed since the last call. Raises SQLAlchemyError, OSError."""
        with db.reading() as session:
            self._sync_site(session)
            self._sync_shorts(session)
            changes = link_cache.changes(session)
            for activity_id, version_id in session.execute(_LAUNCHED):
                seen = (version_id, changes.get(activity_id, {}))
                if self._confirmed.get(activity_id) != seen:
                    self._learn(activity_id, {**link_cache.links_of(session, version_id), **seen[1]})
                    self._confirmed[activity_id] = seen

    def _learn(self, activity_id: int, urls: Urls) -> None:
        self._of_activity[activity_id] = urls
        self.ways = {}
        if urls != link_cache.of_activity(activity_id):
            _keep(f"{activity_id}.json", urls)

    def _sync_site(self, session: Session) -> None:
        hosts = session.scalar(select(Organisation.own_hosts).limit(1)) or []
        forms = dict(session.execute(select(Form.slug, Form.activity_id)).all())
        site = SiteConfig(links.own_hosts(hosts), forms)
        if site != self._site:
            self._site = site
            self.ways = {}
            _keep("site.json", {"own_hosts": hosts, "forms": forms})

    def _sync_shorts(self, session: Session) -> None:
        as_of = session.execute(select(func.count(), func.max(ShortLink.changed_at))).one()
        if self._shorts is not None and as_of == self._shorts_as_of:
            return
        shorts = {link.code: _short(link) for link in session.scalars(select(ShortLink))}
        if shorts != self._shorts:
            self._shorts = shorts
            _keep("short.json", shorts)
        self._shorts_as_of = as_of

    def _shorts_from_disk(self) -> dict[str, ShortLinkTarget] | None:
        try:
            kept = json.loads((link_cache.directory() / "short.json").read_bytes())
            return {code: ShortLinkTarget(*link) for code, link in kept.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return None

    def _from_disk(self, send_id: int) -> Urls | None:
        urls = link_cache.of_activity(send_id >> 32)
        if urls is not None:
            return self._of_activity.setdefault(send_id >> 32, urls)
        urls = link_cache.of_single(send_id)
        if urls is not None:
            _remember(self._of_send, send_id, urls)
        return urls

    def _from_database(self, send_id: int) -> Urls:
        activity_id, now = send_id >> 32, time.monotonic()
        if self._missing.get(send_id, 0) > now:
            return {}
        if now < self._away_until:
            raise TemporaryError(_LATER)
        try:
            with db.reading() as session:
                launched = session.execute(_LAUNCHED.where(Activity.id == activity_id)).one_or_none()
                if launched is not None:
                    changes = link_cache.changes(session, activity_id).get(activity_id, {})
                    urls: Urls = {**link_cache.links_of(session, launched.version_id), **changes}
                    self._learn(activity_id, urls)
                    return urls
                urls = _of_single(session, send_id)
        except SQLAlchemyError as error:
            self._away_until = now + _LOOK_AGAIN
            raise TemporaryError(_LATER) from error
        if urls:
            _remember(self._of_send, send_id, urls)
        else:
            _remember(self._missing, send_id, now + _UNKNOWN_FOR)
        return urls


def _of_single(session: Session, send_id: int) -> Urls:
    version_id = session.scalar(select(Send.version_id).where(Send.id == send_id))
    if version_id is None:
        return {}
    try:
        link_cache.put_up_single(session, {send_id: version_id})
    except OSError as error:
        log.error("destinations.not_kept", send=send_id, error=str(error))
    return link_cache.links_of(session, version_id)


def _keep(name: str, content: Mapping[Any, object]) -> None:
    """Write a cache file. A write error is only logged: without the file, the entry is read from the database after a
    restart.
    """
    try:
        link_cache.keep(name, content)
    except OSError as error:
        log.error("destinations.not_kept", file=name, error=str(error))


_LATER = N_("This link cannot be followed just now. Please try again in a minute.")


def _remember(memory: dict[int, Any], key: int, value: object) -> None:
    if len(memory) >= _REMEMBERED:
        memory.clear()
    memory[key] = value


def _short(link: ShortLink) -> ShortLinkTarget:
    return ShortLinkTarget(link.activity_id, link.number, utm.joined(link.url, link.utm) if link.active else OFF)


def personalised(url: str, send_id: int) -> str:
    """``url`` with the recipient's merge fields replaced; with empty values while the database is down.

    Raises ValidationFailed when the result is not a valid link target.
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
        select(Contact, Campaign.name, OutboxMail)
        .select_from(Send)
        .join(Activity, Activity.id == Send.activity_id)
        .join(Campaign, Campaign.id == Activity.campaign_id)
        .join(Contact, Contact.id == Send.contact_id)
        .outerjoin(OutboxMail, OutboxMail.id == Send.outbox_id)
        .where(Send.id == send_id)
    ).one_or_none()
    organisation = session.get(Organisation, 1)
    if row is None or organisation is None:
        return {}
    fields = renderer.fields_of(row[0], row[1], organisation)
    return {**fields, "contact": {**fields["contact"], **fields_of(row[2])}}


_made: tuple[config.Settings, LinkTargetCache] | None = None


def destinations() -> LinkTargetCache:
    """The cache of this process; a new one after the settings were replaced."""
    global _made
    settings = config.settings()
    if _made is None or _made[0] is not settings:
        _made = (settings, LinkTargetCache())
    return _made[1]


def sync() -> None:
    """Load what was launched or changed since the last call. Raises SQLAlchemyError, OSError."""
    destinations().sync()


_syncing = 0


def keep_synced() -> None:
    """Start a daemon thread that syncs every ``SYNC_SECONDS``. Does nothing when this process already has one."""
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
