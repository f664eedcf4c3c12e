"""Sessionizer: page script reports become visits, page views, custom events and their counters.

Runs in the collector's transaction. Instants are those at which the server received the reports, because clocks of
browsers are not trusted. Each report carries the full state of its page so far, so reports that arrive late, twice or
out of order give the same visit.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import Connection, select, update

from campaigns import clock, config
from campaigns.audience.models import ConsentLevel
from campaigns.db import from_micros, to_micros
from campaigns.delivery.models import Send
from tracking.bots import final_labels
from tracking.collector import consent_at_hit, session_writer, visit_attribution
from tracking.collector.page_reports import PageReport, read
from tracking.collector.visitor_ids import DailySalts
from tracking.conversions import goals
from tracking.counters.aggregation import bucket
from tracking.models.conversions import Goal, GoalKind
from tracking.models.visits import Visit
from tracking.spool.record_codec import Hit

GAP = timedelta(minutes=30)
"""A visit ends after this time without a report."""
MOST_PAGES = 1_000
"""Limit of page views per visit. A visitor with more is not a reader and must not fill the table."""
_SLACK = 60
"""Seconds that a page may have been active before its first report arrived."""
_LONGEST = 86_400
_JOINS_BACK = timedelta(days=90)


@dataclass(slots=True)
class _PageState:
    at: int
    page_id: bytes
    active: int = 0
    scroll: int = 0


@dataclass(slots=True)
class _VisitState:
    """State of a visit while reports are applied to it. Instants are microseconds, dictionary entries are digests."""

    id: int
    visitor: int
    started: int
    last: int
    arrival: bytes
    send_id: int | None
    contact_id: int | None
    activity_id: int | None
    known: int
    group: int
    label: int
    entry: bytes
    exit: bytes
    device: int
    browser: str
    country: str
    new: bool
    first: bool
    first_in_campaign: bool
    pages: int = 0
    active: int = 0
    scroll: int = 0
    engaged: bool = False
    fresh: bool = True
    recognised: bool = False
    """Whether a report of this chunk identified the contact."""
    views: dict[int, _PageState] = field(default_factory=dict)
    changed: set[int] = field(default_factory=set)
    counted: tuple[int, ...] = (0,) * 8

    @property
    def counts(self) -> tuple[int, ...]:
        """The visit's part of its rollup, in the order of ``ROLLUP_COLUMNS``."""
        whole = (1, self.first, self.first_in_campaign, self.engaged, self.active, self.pages, self.new, 0)
        return tuple(map(int, whole))

    @property
    def bucket(self) -> tuple[int, int, int, int]:
        return self.activity_id or 0, bucket(self.started), self.group, self.label


def count(connection: Connection, spool_id: int, hits: Sequence[tuple[int, Hit]]) -> None:
    """Count reports given with their offsets in the spool. Invalid reports are skipped."""
    reports = [report for report in (read(spool_id, offset, hit) for offset, hit in hits) if report is not None]
    if reports:
        _Sessionizer(connection, reports).count(hits)


class _Sessionizer:
    """Applies one chunk of reports."""

    def __init__(self, connection: Connection, reports: Sequence[PageReport]) -> None:
        self._connection, self._reports = connection, reports
        self._gap = clock.scaled(GAP.total_seconds()) // timedelta(microseconds=1)
        self._scale = config.settings().time_scale
        self._enough = config.settings().engaged_seconds
        self._sessions: defaultdict[int, list[_VisitState]] = defaultdict(list)
        self._rows = session_writer.VisitWriter(connection)
        self._engaged: list[_VisitState] = []

    def count(self, hits: Sequence[tuple[int, Hit]]) -> None:
        tracked = [report for report in self._reports if not report.untracked]
        _, self._allowed = consent_at_hit.allowed(self._connection, hits)
        self._contacts = self._contacts_of({report.send_id for report in tracked if report.send_id})
        self._tracer = visit_attribution.VisitAttributor(self._connection, self._reports)
        self._goals = _ActiveGoals(self._connection)
        salts = DailySalts(self._connection, {report.at for report in tracked})
        keyed = [(report, salts.keys(report)) for report in tracked]
        self._load({key for _, keys in keyed for key in keys})
        for report, keys in keyed:
            self._follow(report, keys)
        for report in self._reports:
            self._rows.site(report.site, report.at)
            if report.untracked:
                self._aggregate(report)
        self._write()

    def _contacts_of(self, send_ids: Collection[int]) -> dict[int, int | None]:
        if not send_ids:
            return {}
        query = select(Send.id, Send.contact_id).where(Send.id.in_(send_ids))
        return dict(self._connection.execute(query).all())

    def _load(self, keys: Collection[int]) -> None:
        """Load the visits that may continue, and what brought these visitors before."""
        at = [report.at for report in self._reports]
        for row in self._rows.open_visits(keys, min(at) - self._gap, max(at) + self._gap):
            session = _VisitState(**row, fresh=False)
            session.counted = session.counts
            self._sessions[session.visitor].append(session)
        everybody = [session for several in self._sessions.values() for session in several]
        by_id = {session.id: session for session in everybody}
        for visit_id, page, *view in self._rows.views(by_id, {report.page for report in self._reports}):
            by_id[visit_id].views[page] = _PageState(*view)
        self._before = self._rows.seen_before(keys)

    def _follow(self, report: PageReport, keys: Sequence[int]) -> None:
        """Find or begin the visit of a report and apply the report to it."""
        session = self._session(report, keys)
        if session is None:
            return
        if keys[0] != session.visitor and report.stable:  # The visitor consented to a visitor id during the visit.
            self._sessions[keys[0]].append(session)
            session.visitor = keys[0]
        if report.send_id and session.send_id is None and report.page not in session.views:
            self._recognise(session, report)
        session.last = max(session.last, report.at)
        if not report.bare:
            self._see(session, report)
        if report.form:
            self._rows.form(report.form, session.id, report.at)
        if report.name:
            engages = self._goals.event(report.name)
            self._rows.event(report, session.id, lambda: session.contact_id, None)
            session.engaged = session.engaged or engages
        self._engage(session)

    def _session(self, report: PageReport, keys: Sequence[int]) -> _VisitState | None:
        going_on = [
            session
            for key in keys
            for session in self._sessions[key]
            if session.started - self._gap < report.at < session.last + self._gap
        ]
        for session in going_on:
            if report.page in session.views:
                return session
        if report.stable:  # Neighbours may share a daily hash; an id belongs to one browser.
            going_on = [session for session in going_on if session.visitor == keys[0]]
        if report.bare:
            return max(going_on, key=lambda session: session.last, default=None)
        if report.says_arrival:
            came_so = [s for s in going_on if s.arrival == report.arrival_digest and self._same_person(s, report)]
            going_on = came_so
        if going_on:  # With several tabs open, the visit whose last page links here.
            return max(going_on, key=lambda session: (session.exit == report.led_from, session.last))
        return self._begin(report, keys)

    @staticmethod
    def _same_person(session: _VisitState, report: PageReport) -> bool:
        return not report.send_id or session.send_id in (None, report.send_id)

    def _begin(self, report: PageReport, keys: Sequence[int]) -> _VisitState:
        visitor = keys[0]
        activity_id, known = self._tracer.activity(report)
        campaign_id = self._tracer.campaign_of(activity_id)
        before = self._before[visitor]
        session = _VisitState(
            id=report.id,
            visitor=visitor,
            started=report.at,
            last=report.at,
            arrival=report.arrival_digest,
            send_id=None,
            contact_id=None,
            activity_id=activity_id,
            known=known,
            group=int(report.arrival.group),
            label=report.label,
            entry=report.web_page,
            exit=report.web_page,
            device=report.device,
            browser=report.browser,
            country=report.country,
            new=not before,
            first=("a", activity_id) not in before,
            first_in_campaign=("c", campaign_id) not in before,
        )
        if activity_id is None:
            session.first = not before
            session.first_in_campaign = False
        before |= {("a", activity_id), ("c", campaign_id)}
        self._rows.page(report.web_page, report)
        self._rows.arrival(report.arrival_digest, report.arrival, report.referrer_host)
        self._sessions[visitor].append(session)
        return session

    def _recognise(self, session: _VisitState, report: PageReport) -> None:
        """Store send and contact of a visit that began with a mail's link, when consent at that time is FULL."""
        if self._allowed(report.send_id, report.at) is ConsentLevel.FULL:
            session.send_id = report.send_id
            session.contact_id = session.contact_id or self._contacts.get(report.send_id)
            session.recognised = session.contact_id is not None

    def _see(self, session: _VisitState, report: PageReport) -> None:
        view = session.views.get(report.page)
        if view is None:
            if session.pages >= MOST_PAGES:
                return
            view = session.views[report.page] = _PageState(report.at, report.web_page)
            session.pages += 1
            if report.at >= session.last:
                session.exit = report.web_page
            self._rows.page(report.web_page, report)
            for goal_id in self._goals.page(report):
                self._rows.reached(session.id, goal_id, report)
                session.engaged = True
        most = (report.at - view.at) / 1e6 * self._scale + _SLACK
        active = max(view.active, int(min(report.active, most, _LONGEST)))
        session.active += active - view.active
        view.active, view.scroll = active, max(view.scroll, report.scroll)
        session.scroll = max(session.scroll, view.scroll)
        session.changed.add(report.page)

    def _engage(self, session: _VisitState) -> None:
        session.engaged = session.engaged or session.active > self._enough or session.pages > 1

    def _aggregate(self, report: PageReport) -> None:
        """Count a report of a browser that opts out of tracking: only rollups, no visitor, no visit, no contact."""
        activity_id, _ = self._tracer.activity(report)
        if report.name:
            self._rows.event(report, None, lambda: None, activity_id)
        if report.kind == "v":
            begins = int(report.says_arrival or not report.from_own_page)
            key = activity_id or 0, bucket(report.at), int(report.arrival.group), report.label
            self._rows.rollup(key, (begins, 0, 0, 0, 0, 1, 0, begins))

    def _write(self) -> None:
        everybody = {session.id: session for several in self._sessions.values() for session in several}
        touched = [session for session in everybody.values() if session.changed or session.fresh]
        for session in touched:
            change = tuple(now - was for now, was in zip(session.counts, session.counted, strict=True))
            self._rows.rollup(session.bucket, change)
            self._rows.sides(session, change)
        self._rows.write(touched)
        _join_story(self._connection, touched)
        led = [(s.send_id, from_micros(s.started)) for s in touched if s.engaged and not s.counted[3] and s.send_id]
        if led:
            final_labels.settle_engaged(self._connection, led)


def _join_story(connection: Connection, sessions: Iterable[_VisitState]) -> None:
    """Assign earlier visits of newly identified visitors to their contacts."""
    for session in sessions:
        if session.recognised and session.contact_id is not None:
            join_story(connection, session.visitor, session.contact_id, session.started)


def join_story(connection: Connection, visitor: int, contact_id: int, at: int) -> None:
    """Assign the visitor's visits of the last 90 days that have no contact to the contact."""
    connection.execute(
        update(Visit)
        .where(Visit.visitor == visitor, Visit.contact_id.is_(None), Visit.last_at > from_micros(at) - _JOINS_BACK)
        .values(contact_id=contact_id)
    )


class _ActiveGoals:
    """Active page and event goals."""

    def __init__(self, connection: Connection) -> None:
        query = select(Goal.id, Goal.kind, Goal.match, Goal.key, Goal.since).where(
            Goal.active, Goal.kind.in_((GoalKind.PAGE, GoalKind.EVENT))
        )
        rows = connection.execute(query).all()
        self._pages = [(row.id, row.match, to_micros(row.since)) for row in rows if row.kind is GoalKind.PAGE]
        self._names = {name for row in rows if row.kind is GoalKind.EVENT for name in (row.match, row.key)}

    def event(self, name: str) -> bool:
        """Whether a goal counts events of this name."""
        return name in self._names

    def page(self, report: PageReport) -> list[int]:
        """The ids of the goals that this page reaches."""
        return [
            goal_id
            for goal_id, match, since in self._pages
            if report.at >= since and goals.page_matches(match, report.address)
        ]
