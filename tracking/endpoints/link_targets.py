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
SWITCHED_OFF = ""
"""Value in place of a URL: the link was switched off."""
_MAX_CACHED_SENDS = 10_000
_MISSING_TTL_SECONDS = 5.0  # Seconds before a send that was not found is looked up again.
_REFRESH_SECONDS = 1.0  # Minimum seconds between two reloads caused by unknown codes or pages.

# Activities that are only scheduled are left out: their links may still change, and none of their mails was sent.
_LAUNCHED_ACTIVITIES = (
    select(Activity.id, func.coalesce(EmailDetails.version_id, 0).label("version_id"))
    .join(EmailDetails)
    .where(EmailDetails.version_id.is_not(None), Activity.launched_at.is_not(None), Activity.built_in.is_(None))
)


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """Configuration shared by all links of the installation."""

    own_hosts: frozenset[str]
    """Host names that the organisation declares its own, in lower case."""
    landing_pages: dict[str, int]
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
    around_visit_token: tuple[str, str] | None
    """For a page on an own host: the URL before and after the visit token, which differs for each recipient."""


class LinkTargetCache:
    """Links, landing pages and own hosts known to one process."""

    def __init__(self) -> None:
        self.resolved: dict[tuple[int, str], LinkTarget] = {}
        """Answers by (activity id, link number as written in the URL). Replaced by an empty dictionary after each
        change.
        """
        self._urls_by_activity: dict[int, Urls] = {}
        self._urls_by_send: dict[int, Urls] = {}
        self._synced_versions: dict[int, tuple[int, Urls]] = {}
        self._site: SiteConfig | None = None
        self._short_links: dict[str, ShortLinkTarget] | None = None
        self._short_links_version: object = None
        self._missing_until: dict[int, float] = {}
        self._next_refresh_at = 0.0
        self._database_down_until = 0.0

    def url(self, send_id: int, number: int) -> str | None:
        """The target of a link, with merge fields not yet replaced; SWITCHED_OFF when the link was switched off; None
        when there is no such link.

        Raises TemporaryError when the link is unknown on this host and the database is down.
        """
        urls = self._urls_by_activity.get(send_id >> 32)
        if urls is None:
            urls = self._urls_by_send.get(send_id)
        if urls is None:
            urls = self._urls_from_disk(send_id)
        if urls is None:
            urls = self._urls_from_database(send_id)
        return urls.get(number)

    def uses_activity_links(self, send_id: int) -> bool:
        """Whether all sends of the activity have the same links, so that an answer can be cached per activity."""
        return send_id >> 32 in self._urls_by_activity

    def short_link(self, code: str) -> ShortLinkTarget | None:
        """The target of a short link; None when there is no such link. Raises TemporaryError like :meth:`url`."""
        code = code.lower()  # The code may be typed from a printed page.
        if self._short_links is None:
            self._short_links = self._short_links_from_disk()
        link = (self._short_links or {}).get(code)
        if link is None and self._refresh_if_due():
            link = (self._short_links or {}).get(code)
        if link is None and self._short_links is None:
            raise TemporaryError(_TRY_LATER)
        return link

    def landing_page_activity(self, slug: str) -> int | None:
        """The activity id of a landing page; None when there is no such page or the database is down."""
        activity_id = self.site_config().landing_pages.get(slug)
        if activity_id is None and self._refresh_if_due():
            activity_id = self.site_config().landing_pages.get(slug)
        return activity_id

    def _refresh_if_due(self) -> bool:
        """Reload pages and short links from the database, at most once a second. False when not due or when the
        database is down.
        """
        if time.monotonic() < self._next_refresh_at:
            return False
        self._next_refresh_at = time.monotonic() + _REFRESH_SECONDS
        try:
            with db.read_only_session() as session:
                self._sync_site_config(session)
                self._sync_short_links(session)
        except SQLAlchemyError:
            return False
        return True

    def site_config(self) -> SiteConfig:
        """Own hosts and landing pages as last loaded, from memory, disk or database; without landing pages when all
        three fail.
        """
        if self._site is None:
            try:
                cached = json.loads((link_cache.directory() / "site.json").read_bytes())
                self._site = SiteConfig(links.own_hosts(cached["own_hosts"]), dict(cached["forms"]))
            except (OSError, ValueError, KeyError, TypeError):
                self._site = SiteConfig(links.own_hosts(()), {})
                try:
                    with db.read_only_session() as session:
                        self._sync_site_config(session)
                except SQLAlchemyError:
                    pass
        return self._site

    def sync(self) -> None:
        """Load what was launched or changed since the last call. Raises SQLAlchemyError, OSError."""
        with db.read_only_session() as session:
            self._sync_site_config(session)
            self._sync_short_links(session)
            changes = link_cache.link_overrides(session)
            for activity_id, version_id in session.execute(_LAUNCHED_ACTIVITIES):
                seen = (version_id, changes.get(activity_id, {}))
                if self._synced_versions.get(activity_id) != seen:
                    self._store_activity_urls(
                        activity_id, {**link_cache.links_of_version(session, version_id), **seen[1]}
                    )
                    self._synced_versions[activity_id] = seen

    def _store_activity_urls(self, activity_id: int, urls: Urls) -> None:
        self._urls_by_activity[activity_id] = urls
        self.resolved = {}
        if urls != link_cache.links_for_activity(activity_id):
            _write_cache_file(f"{activity_id}.json", urls)

    def _sync_site_config(self, session: Session) -> None:
        hosts = session.scalar(select(Organisation.own_hosts).limit(1)) or []
        forms = dict(session.execute(select(Form.slug, Form.activity_id)).all())
        site = SiteConfig(links.own_hosts(hosts), forms)
        if site != self._site:
            self._site = site
            self.resolved = {}
            _write_cache_file("site.json", {"own_hosts": hosts, "forms": forms})

    def _sync_short_links(self, session: Session) -> None:
        as_of = session.execute(select(func.count(), func.max(ShortLink.changed_at))).one()
        if self._short_links is not None and as_of == self._short_links_version:
            return
        short_links = {link.code: _short_link_target(link) for link in session.scalars(select(ShortLink))}
        if short_links != self._short_links:
            self._short_links = short_links
            _write_cache_file("short.json", short_links)
        self._short_links_version = as_of

    def _short_links_from_disk(self) -> dict[str, ShortLinkTarget] | None:
        try:
            cached = json.loads((link_cache.directory() / "short.json").read_bytes())
            return {code: ShortLinkTarget(*link) for code, link in cached.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return None

    def _urls_from_disk(self, send_id: int) -> Urls | None:
        urls = link_cache.links_for_activity(send_id >> 32)
        if urls is not None:
            return self._urls_by_activity.setdefault(send_id >> 32, urls)
        urls = link_cache.links_for_send(send_id)
        if urls is not None:
            _cache_entry(self._urls_by_send, send_id, urls)
        return urls

    def _urls_from_database(self, send_id: int) -> Urls:
        activity_id, now = send_id >> 32, time.monotonic()
        if self._missing_until.get(send_id, 0) > now:
            return {}
        if now < self._database_down_until:
            raise TemporaryError(_TRY_LATER)
        try:
            with db.read_only_session() as session:
                launched = session.execute(_LAUNCHED_ACTIVITIES.where(Activity.id == activity_id)).one_or_none()
                if launched is not None:
                    changes = link_cache.link_overrides(session, activity_id).get(activity_id, {})
                    urls: Urls = {**link_cache.links_of_version(session, launched.version_id), **changes}
                    self._store_activity_urls(activity_id, urls)
                    return urls
                urls = _urls_of_single_send(session, send_id)
        except SQLAlchemyError as error:
            self._database_down_until = now + _REFRESH_SECONDS
            raise TemporaryError(_TRY_LATER) from error
        if urls:
            _cache_entry(self._urls_by_send, send_id, urls)
        else:
            _cache_entry(self._missing_until, send_id, now + _MISSING_TTL_SECONDS)
        return urls


def _urls_of_single_send(session: Session, send_id: int) -> Urls:
    version_id = session.scalar(select(Send.version_id).where(Send.id == send_id))
    if version_id is None:
        return {}
    try:
        link_cache.cache_single_links(session, {send_id: version_id})
    except OSError as error:
        log.error("link_targets.write_failed", send=send_id, error=str(error))
    return link_cache.links_of_version(session, version_id)


def _write_cache_file(name: str, content: Mapping[Any, object]) -> None:
    """Write a cache file. A write error is only logged: without the file, the entry is read from the database after a
    restart.
    """
    try:
        link_cache.write_json(name, content)
    except OSError as error:
        log.error("link_targets.write_failed", file=name, error=str(error))


_TRY_LATER = N_("This link cannot be followed just now. Please try again in a minute.")


def _cache_entry(cache: dict[int, Any], key: int, value: object) -> None:
    if len(cache) >= _MAX_CACHED_SENDS:
        cache.clear()
    cache[key] = value


def _short_link_target(link: ShortLink) -> ShortLinkTarget:
    return ShortLinkTarget(
        link.activity_id, link.number, utm.append_query(link.url, link.utm) if link.active else SWITCHED_OFF
    )


def personalise_url(url: str, send_id: int) -> str:
    """``url`` with the recipient's merge fields replaced; with empty values while the database is down.

    Raises ValidationFailed when the result is not a valid link target.
    """
    if "{{" not in url:
        return url
    fields: Mapping[str, object] = {}
    try:
        with db.read_only_session() as session:
            fields = _merge_fields(session, send_id)
    except SQLAlchemyError as error:
        log.warning("link_targets.personalise_failed", error=str(error)[:200])
    return links.personalise_url(url, fields)


def _merge_fields(session: Session, send_id: int) -> Mapping[str, object]:
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
    fields = renderer.recipient_fields(row[0], row[1], organisation)
    return {**fields, "contact": {**fields["contact"], **fields_of(row[2])}}


_instance: tuple[config.Settings, LinkTargetCache] | None = None


def link_target_cache() -> LinkTargetCache:
    """The cache of this process; a new one after the settings were replaced."""
    global _instance
    settings = config.settings()
    if _instance is None or _instance[0] is not settings:
        _instance = (settings, LinkTargetCache())
    return _instance[1]


def sync() -> None:
    """Load what was launched or changed since the last call. Raises SQLAlchemyError, OSError."""
    link_target_cache().sync()


_sync_thread_pid = 0


def start_sync_thread() -> None:
    """Start a daemon thread that syncs every ``SYNC_SECONDS``. Does nothing when this process already has one."""
    global _sync_thread_pid
    if _sync_thread_pid != os.getpid():
        _sync_thread_pid = os.getpid()
        threading.Thread(target=_sync_forever, name="link-targets-sync", daemon=True).start()


def _sync_forever() -> None:
    while True:
        try:
            sync()
        except (SQLAlchemyError, OSError) as error:
            log.warning("link_targets.sync_failed", error=str(error)[:200])
        time.sleep(SYNC_SECONDS)
