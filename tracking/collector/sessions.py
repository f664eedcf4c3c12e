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
from tracking.collector.page_reports import PageReport, parse_report
from tracking.collector.visitor_ids import DailySalts
from tracking.conversions import goals
from tracking.counters.aggregation import bucket_start
from tracking.models.conversions import Goal, GoalKind
from tracking.models.visits import Visit
from tracking.spool.record_codec import Hit

SESSION_TIMEOUT = timedelta(minutes=30)
"""A visit ends after this time without a report."""
MAX_PAGE_VIEWS = 1_000
"""Limit of page views per visit. A visitor with more is not a reader and must not fill the table."""
_ACTIVE_SLACK_SECONDS = 60
"""Seconds that a page may have been active before its first report arrived."""
_MAX_ACTIVE_SECONDS = 86_400
_LINKING_PERIOD = timedelta(days=90)


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
    is_unsaved: bool = True
    is_newly_identified: bool = False
    """Whether a report of this chunk identified the contact."""
    views: dict[int, _PageState] = field(default_factory=dict)
    changed: set[int] = field(default_factory=set)
    stored_counts: tuple[int, ...] = (0,) * 8

    @property
    def counts(self) -> tuple[int, ...]:
        """The visit's part of its rollup, in the order of ``ROLLUP_COLUMNS``."""
        whole = (1, self.first, self.first_in_campaign, self.engaged, self.active, self.pages, self.new, 0)
        return tuple(map(int, whole))

    @property
    def bucket(self) -> tuple[int, int, int, int]:
        return self.activity_id or 0, bucket_start(self.started), self.group, self.label


def count(connection: Connection, spool_id: int, hits: Sequence[tuple[int, Hit]]) -> None:
    """Count reports given with their offsets in the spool. Invalid reports are skipped."""
    reports = [report for report in (parse_report(spool_id, offset, hit) for offset, hit in hits) if report is not None]
    if reports:
        _Sessionizer(connection, reports).count(hits)


class _Sessionizer:
    """Applies one chunk of reports."""

    def __init__(self, connection: Connection, reports: Sequence[PageReport]) -> None:
        self._connection, self._reports = connection, reports
        self._timeout = clock.scaled(SESSION_TIMEOUT.total_seconds()) // timedelta(microseconds=1)
        self._time_scale = config.settings().time_scale
        self._engaged_seconds = config.settings().engaged_seconds
        self._sessions: defaultdict[int, list[_VisitState]] = defaultdict(list)
        self._writer = session_writer.VisitWriter(connection)
        self._engaged: list[_VisitState] = []

    def count(self, hits: Sequence[tuple[int, Hit]]) -> None:
        tracked = [report for report in self._reports if not report.untracked]
        _, self._consent_at = consent_at_hit.consent_levels(self._connection, hits)
        self._contacts = self._contacts_of({report.send_id for report in tracked if report.send_id})
        self._attributor = visit_attribution.VisitAttributor(self._connection, self._reports)
        self._goals = _ActiveGoals(self._connection)
        salts = DailySalts(self._connection, {report.at for report in tracked})
        keyed = [(report, salts.visitor_keys(report)) for report in tracked]
        self._load_open_visits({key for _, keys in keyed for key in keys})
        for report, keys in keyed:
            self._apply_report(report, keys)
        for report in self._reports:
            self._writer.add_site(report.host, report.at)
            if report.untracked:
                self._count_without_visit(report)
        self._write()

    def _contacts_of(self, send_ids: Collection[int]) -> dict[int, int | None]:
        if not send_ids:
            return {}
        query = select(Send.id, Send.contact_id).where(Send.id.in_(send_ids))
        return dict(self._connection.execute(query).all())

    def _load_open_visits(self, keys: Collection[int]) -> None:
        """Load the visits that may continue, and what brought these visitors before."""
        at = [report.at for report in self._reports]
        for row in self._writer.open_visits(keys, min(at) - self._timeout, max(at) + self._timeout):
            session = _VisitState(**row, is_unsaved=False)
            session.stored_counts = session.counts
            self._sessions[session.visitor].append(session)
        all_sessions = [session for several in self._sessions.values() for session in several]
        by_id = {session.id: session for session in all_sessions}
        for visit_id, page, *view in self._writer.page_views(by_id, {report.page for report in self._reports}):
            by_id[visit_id].views[page] = _PageState(*view)
        self._seen_before = self._writer.seen_before(keys)

    def _apply_report(self, report: PageReport, keys: Sequence[int]) -> None:
        """Find or begin the visit of a report and apply the report to it."""
        session = self._find_or_begin_visit(report, keys)
        if session is None:
            return
        if keys[0] != session.visitor and report.visitor_id:  # The visitor consented to a visitor id during the visit.
            self._sessions[keys[0]].append(session)
            session.visitor = keys[0]
        if report.send_id and session.send_id is None and report.page not in session.views:
            self._identify_contact(session, report)
        session.last = max(session.last, report.at)
        if not report.is_embedded_form:
            self._record_page(session, report)
        if report.form_key:
            self._writer.add_form_view(report.form_key, session.id, report.at)
        if report.event_name:
            engages = self._goals.is_event_goal(report.event_name)
            self._writer.add_custom_event(report, session.id, lambda: session.contact_id, None)
            session.engaged = session.engaged or engages
        self._update_engaged(session)

    def _find_or_begin_visit(self, report: PageReport, keys: Sequence[int]) -> _VisitState | None:
        open_sessions = [
            session
            for key in keys
            for session in self._sessions[key]
            if session.started - self._timeout < report.at < session.last + self._timeout
        ]
        for session in open_sessions:
            if report.page in session.views:
                return session
        if report.visitor_id:  # Neighbours may share a daily hash; an id belongs to one browser.
            open_sessions = [session for session in open_sessions if session.visitor == keys[0]]
        if report.is_embedded_form:
            return max(open_sessions, key=lambda session: session.last, default=None)
        if report.has_explicit_source:
            came_so = [
                s for s in open_sessions if s.arrival == report.arrival_digest and self._may_be_same_person(s, report)
            ]
            open_sessions = came_so
        if open_sessions:  # With several tabs open, the visit whose last page links here.
            return max(open_sessions, key=lambda session: (session.exit == report.referring_page, session.last))
        return self._begin_visit(report, keys)

    @staticmethod
    def _may_be_same_person(session: _VisitState, report: PageReport) -> bool:
        return not report.send_id or session.send_id in (None, report.send_id)

    def _begin_visit(self, report: PageReport, keys: Sequence[int]) -> _VisitState:
        visitor = keys[0]
        activity_id, known = self._attributor.attribute(report)
        campaign_id = self._attributor.campaign_of(activity_id)
        seen_before = self._seen_before[visitor]
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
            entry=report.page_digest,
            exit=report.page_digest,
            device=report.device,
            browser=report.browser,
            country=report.country,
            new=not seen_before,
            first=("a", activity_id) not in seen_before,
            first_in_campaign=("c", campaign_id) not in seen_before,
        )
        if activity_id is None:
            session.first = not seen_before
            session.first_in_campaign = False
        seen_before |= {("a", activity_id), ("c", campaign_id)}
        self._writer.add_page(report.page_digest, report)
        self._writer.add_arrival(report.arrival_digest, report.arrival, report.referrer_host)
        self._sessions[visitor].append(session)
        return session

    def _identify_contact(self, session: _VisitState, report: PageReport) -> None:
        """Store send and contact of a visit that began with a mail's link, when consent at that time is FULL."""
        if self._consent_at(report.send_id, report.at) is ConsentLevel.FULL:
            session.send_id = report.send_id
            session.contact_id = session.contact_id or self._contacts.get(report.send_id)
            session.is_newly_identified = session.contact_id is not None

    def _record_page(self, session: _VisitState, report: PageReport) -> None:
        view = session.views.get(report.page)
        if view is None:
            if session.pages >= MAX_PAGE_VIEWS:
                return
            view = session.views[report.page] = _PageState(report.at, report.page_digest)
            session.pages += 1
            if report.at >= session.last:
                session.exit = report.page_digest
            self._writer.add_page(report.page_digest, report)
            for goal_id in self._goals.reached_by_page(report):
                self._writer.add_page_goal(session.id, goal_id, report)
                session.engaged = True
        max_active = (report.at - view.at) / 1e6 * self._time_scale + _ACTIVE_SLACK_SECONDS
        active = max(view.active, int(min(report.active_seconds, max_active, _MAX_ACTIVE_SECONDS)))
        session.active += active - view.active
        view.active, view.scroll = active, max(view.scroll, report.scroll_percent)
        session.scroll = max(session.scroll, view.scroll)
        session.changed.add(report.page)

    def _update_engaged(self, session: _VisitState) -> None:
        session.engaged = session.engaged or session.active > self._engaged_seconds or session.pages > 1

    def _count_without_visit(self, report: PageReport) -> None:
        """Count a report of a browser that opts out of tracking: only rollups, no visitor, no visit, no contact."""
        activity_id, _ = self._attributor.attribute(report)
        if report.event_name:
            self._writer.add_custom_event(report, None, lambda: None, activity_id)
        if report.kind == "v":
            begins = int(report.has_explicit_source or not report.is_internal_referral)
            key = activity_id or 0, bucket_start(report.at), int(report.arrival.group), report.label
            self._writer.add_to_rollup(key, (begins, 0, 0, 0, 0, 1, 0, begins))

    def _write(self) -> None:
        all_sessions = {session.id: session for several in self._sessions.values() for session in several}
        touched = [session for session in all_sessions.values() if session.changed or session.is_unsaved]
        for session in touched:
            change = tuple(now - was for now, was in zip(session.counts, session.stored_counts, strict=True))
            self._writer.add_to_rollup(session.bucket, change)
            self._writer.add_to_breakdowns(session, change)
        self._writer.write(touched)
        _link_identified_visits(self._connection, touched)
        engaged_by_send = [
            (s.send_id, from_micros(s.started)) for s in touched if s.engaged and not s.stored_counts[3] and s.send_id
        ]
        if engaged_by_send:
            final_labels.confirm_by_engaged_visit(self._connection, engaged_by_send)


def _link_identified_visits(connection: Connection, sessions: Iterable[_VisitState]) -> None:
    """Assign earlier visits of newly identified visitors to their contacts."""
    for session in sessions:
        if session.is_newly_identified and session.contact_id is not None:
            link_earlier_visits(connection, session.visitor, session.contact_id, session.started)


def link_earlier_visits(connection: Connection, visitor: int, contact_id: int, at: int) -> None:
    """Assign the visitor's visits of the last 90 days that have no contact to the contact."""
    connection.execute(
        update(Visit)
        .where(Visit.visitor == visitor, Visit.contact_id.is_(None), Visit.last_at > from_micros(at) - _LINKING_PERIOD)
        .values(contact_id=contact_id)
    )


class _ActiveGoals:
    """Active page and event goals."""

    def __init__(self, connection: Connection) -> None:
        query = select(Goal.id, Goal.kind, Goal.match, Goal.key, Goal.since).where(
            Goal.active, Goal.kind.in_((GoalKind.PAGE, GoalKind.EVENT))
        )
        rows = connection.execute(query).all()
        self._page_goals = [(row.id, row.match, to_micros(row.since)) for row in rows if row.kind is GoalKind.PAGE]
        self._event_names = {name for row in rows if row.kind is GoalKind.EVENT for name in (row.match, row.key)}

    def is_event_goal(self, name: str) -> bool:
        """Whether a goal counts events of this name."""
        return name in self._event_names

    def reached_by_page(self, report: PageReport) -> list[int]:
        """The ids of the goals that this page reaches."""
        return [
            goal_id
            for goal_id, match, since in self._page_goals
            if report.at >= since and goals.page_matches(match, report.address)
        ]
