"""Database reads and writes of the sessionizer: one statement per table and chunk, on both databases."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import aliased

from campaigns.db import Base, from_micros, to_micros
from campaigns.errors import ValidationFailed
from campaigns.planning.models import Activity
from tracking.channels.channel_groups import RULES_VERSION, TrafficParameters, social_network_of
from tracking.collector.page_reports import PageReport, digest_of, replace_unprintable
from tracking.conversions import currency as conversions_currency
from tracking.counters import breakdowns, daily
from tracking.models.conversions import CustomEvent
from tracking.models.events import TrafficLabel
from tracking.models.visits import (
    PageView,
    PendingFormView,
    PendingPageGoal,
    SiteLastSeen,
    TrafficSource,
    Visit,
    VisitRollup,
    WebPage,
)

ROLLUP_COLUMNS = daily.VISIT_COLUMNS
_ROLLUP_KEY = ("activity_id", "bucket", "channel_group", "label")
_MAX_ADDRESS_LENGTH = 2_000


class VisitWriter:
    """Collects the rows that a chunk adds and writes them at the end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pages: dict[bytes, tuple[str, str]] = {}
        self._arrivals: dict[bytes, tuple[TrafficParameters, str]] = {}
        self._form_views: dict[str, dict[str, Any]] = {}
        self._page_goals: dict[tuple[int, int], dict[str, Any]] = {}
        self._sites: dict[str, list[int]] = {}
        self._events: dict[str, tuple[dict[str, Any], Callable[[], int | None]]] = {}
        self._rollups: defaultdict[tuple[int, int, int, int], list[int]] = defaultdict(
            lambda: [0] * len(ROLLUP_COLUMNS)
        )
        self._breakdowns: list[tuple[Any, Sequence[int]]] = []

    def open_visits(self, visitors: Collection[int], since: int, until: int) -> Iterator[dict[str, Any]]:
        """Visits of these visitors that may continue between two instants (microseconds), oldest first, as keyword
        arguments of the sessionizer's visit state.
        """
        entry, leaving = aliased(WebPage), aliased(WebPage)
        query = (
            select(Visit, TrafficSource.digest, TrafficSource.channel_group, entry.digest, leaving.digest)
            .join(TrafficSource, TrafficSource.id == Visit.traffic_source_id)
            .join(entry, entry.id == Visit.entry_id)
            .join(leaving, leaving.id == Visit.exit_id)
            .where(Visit.visitor.in_(visitors), Visit.last_at > from_micros(since))
            .where(Visit.started_at < from_micros(until))
            .order_by(Visit.started_at, Visit.id)
        )
        for row in self._connection.execute(query):
            yield {
                "id": row.id,
                "visitor": row.visitor,
                "started": to_micros(row.started_at),
                "last": to_micros(row.last_at),
                "arrival": row[-4],
                "group": row[-3],
                "entry": row[-2],
                "exit": row[-1],
                "send_id": row.send_id,
                "contact_id": row.contact_id,
                "activity_id": row.activity_id,
                "known": row.attributed_by,
                "label": row.label,
                "device": row.device,
                "browser": row.browser,
                "country": row.country,
                "new": row.new,
                "first": row.first,
                "first_in_campaign": row.first_in_campaign,
                "pages": row.pages,
                "active": row.active_seconds,
                "scroll": row.scroll,
                "engaged": row.engaged,
            }

    def page_views(self, visit_ids: Collection[int], pages: Collection[int]) -> Iterator[tuple[Any, ...]]:
        """Stored page views as (visit id, page number, microseconds, page digest, active seconds, scroll per cent)."""
        query = (
            select(PageView, WebPage.digest)
            .join(WebPage, WebPage.id == PageView.page_id)
            .where(PageView.visit_id.in_(visit_ids), PageView.page.in_(pages))
        )
        for row in self._connection.execute(query):
            yield row.visit_id, row.page, to_micros(row.at), row.digest, row.active_seconds, row.scroll

    def seen_before(self, visitors: Collection[int]) -> defaultdict[int, set[tuple[str, int | None]]]:
        """The sources that brought each visitor before: ("a", activity id) and ("c", campaign id), by visitor."""
        query = (
            select(Visit.visitor, Visit.activity_id, Activity.campaign_id)
            .outerjoin(Activity, Activity.id == Visit.activity_id)
            .where(Visit.visitor.in_(visitors))
            .distinct()
        )
        found = defaultdict[int, set[tuple[str, int | None]]](set)
        for visitor, activity_id, campaign_id in self._connection.execute(query):
            found[visitor] |= {("a", activity_id), ("c", campaign_id)}
        return found

    def add_page(self, digest: bytes, report: PageReport) -> None:
        self._pages[digest] = (report.host, report.path)

    def add_arrival(self, digest: bytes, arrival: TrafficParameters, referrer: str) -> None:
        self._arrivals[digest] = (arrival, referrer)

    def add_site(self, host: str, at: int) -> None:
        seen = self._sites.setdefault(host, [at, 0])
        seen[:] = [max(at, seen[0]), seen[1] + 1]

    def add_form_view(self, page: str, visit_id: int, at: int) -> None:
        self._form_views[page] = {"page": page, "visit_id": visit_id, "at": from_micros(at)}

    def add_page_goal(self, visit_id: int, goal_id: int, report: PageReport) -> None:
        self._page_goals[visit_id, goal_id] = {
            "visit_id": visit_id,
            "goal_id": goal_id,
            "page_id": report.page_digest,
            "at": from_micros(report.at),
        }

    def add_to_rollup(self, key: tuple[int, int, int, int], change: Sequence[int]) -> None:
        """Add ``change``, in the order of ``ROLLUP_COLUMNS``, to the rollup of (activity, bucket, channel group,
        label).
        """
        if any(change):
            self._rollups[key] = [was + more for was, more in zip(self._rollups[key], change, strict=True)]

    def add_to_breakdowns(self, session: Any, change: Sequence[int]) -> None:
        """Add the change of a human visit, in the order of ``ROLLUP_COLUMNS``, to the breakdowns of its activity."""
        sums = [change[ROLLUP_COLUMNS.index(name)] for name in breakdowns.SUM_COLUMNS]
        if session.activity_id and session.label == TrafficLabel.HUMAN and any(sums):
            self._breakdowns.append((session, sums))

    def add_custom_event(
        self, report: PageReport, visit_id: int | None, contact: Callable[[], int | None], activity_id: int | None
    ) -> None:
        """Add a custom event. With an event id of the site's own, repeated reports are one event,
        whatever the visit.
        """
        fields = report.event_fields
        own_id = str(fields["e"])[:200] if isinstance(fields.get("e"), str | int) and fields.get("e") else ""
        script_id = str(fields.get("x"))[:40]
        if own_id:
            external_id = f"page:{digest_of(report.host, report.event_name, own_id).hex()}"
        else:
            external_id = f"visit:{visit_id or report.id}:{digest_of(script_id, report.event_name).hex()[:16]}"
        detail: dict[str, Any] = {"page": report.address}
        if isinstance(fields.get("h"), str):
            detail["url"] = replace_unprintable(fields["h"], _MAX_ADDRESS_LENGTH)
        try:
            amount, currency = (
                conversions_currency.parse_amount(fields.get("v")),
                conversions_currency.parse_currency(fields.get("c")),
            )
        except ValidationFailed:
            amount, currency = None, ""
            detail["refused"] = replace_unprintable(f"{fields.get('v')!r:.40} {fields.get('c')!r:.10}", 60)
        self._events.setdefault(
            external_id,
            (
                {
                    "external_id": external_id,
                    "name": report.event_name,
                    "at": from_micros(report.at),
                    "visit_id": visit_id,
                    "activity_id": activity_id,
                    "amount": amount,
                    "currency": currency if amount is not None else "",
                    "detail": detail,
                    "processed": False,
                },
                contact,
            ),
        )

    def write(self, sessions: Iterable[Any]) -> None:
        """Write everything collected, the visits of ``sessions`` and their changed page views."""
        sessions = sorted(sessions, key=lambda session: session.id)
        pages, arrivals = self._page_ids(sessions), self._arrival_ids(sessions)
        self._upsert(Visit, ["id"], [_visit_row(one, pages, arrivals) for one in sessions], _MUTABLE_COLUMNS)
        breakdowns.add(
            self._connection,
            (
                ((one.activity_id, pages[one.entry], arrivals[one.arrival], one.device, one.country), more)
                for one, more in self._breakdowns
            ),
        )
        views = [
            {
                "visit_id": one.id,
                "page": page,
                "at": from_micros(one.views[page].at),
                "page_id": pages[one.views[page].page_id],
                "active_seconds": one.views[page].active,
                "scroll": one.views[page].scroll,
            }
            for one in sessions
            for page in sorted(one.changed)
        ]
        self._upsert(PageView, ["visit_id", "page"], views, ["active_seconds", "scroll"])
        self._upsert(PendingFormView, ["page"], list(self._form_views.values()), ["visit_id", "at"])
        page_goals = [row | {"page_id": pages[row["page_id"]]} for _, row in sorted(self._page_goals.items())]
        self._upsert(PendingPageGoal, ["visit_id", "goal_id"], page_goals, [])
        events = [row | {"contact_id": contact()} for _, (row, contact) in sorted(self._events.items())]
        self._upsert(CustomEvent, ["external_id"], events, [])
        sites = [
            {"host": host, "last_at": from_micros(at), "records": many} for host, (at, many) in self._sites.items()
        ]
        self._upsert(SiteLastSeen, ["host"], sites, ["last_at"], adds=["records"])
        rollups = [
            dict(zip(_ROLLUP_KEY, key, strict=True))
            | {"bucket": from_micros(key[1])}
            | dict(zip(ROLLUP_COLUMNS, counts, strict=True))
            for key, counts in sorted(self._rollups.items())
        ]
        if rollups:
            daily.add_visits(self._connection, self._rollups.items())
        self._upsert(VisitRollup, list(_ROLLUP_KEY), rollups, [], adds=ROLLUP_COLUMNS)

    def _upsert(
        self,
        model: type[Base],
        key: list[str],
        rows: list[dict[str, Any]],
        sets: Sequence[str],
        adds: Sequence[str] = (),
    ) -> None:
        """Insert rows; for existing keys replace the columns ``sets`` and add to the columns ``adds``."""
        if not rows:
            return
        table = model.__table__
        assert isinstance(table, Table)
        dialect = postgresql if self._connection.dialect.name == "postgresql" else sqlite
        statement: Any = dialect.insert(table)
        changes = {name: statement.excluded[name] for name in sets}
        changes |= {name: table.c[name] + statement.excluded[name] for name in adds}
        if changes:
            statement = statement.on_conflict_do_update(index_elements=key, set_=changes)
        else:
            statement = statement.on_conflict_do_nothing(index_elements=key)
        self._connection.execute(statement, rows)

    def _page_ids(self, sessions: Sequence[Any]) -> dict[bytes, int]:
        digests = {digest for one in sessions for digest in (one.entry, one.exit)} | self._pages.keys()
        digests |= {one.views[page].page_id for one in sessions for page in one.changed}
        new = {digest: {"host": host, "path": path} for digest, (host, path) in self._pages.items()}
        return self._dictionary_ids(WebPage, digests, new)

    def _arrival_ids(self, sessions: Sequence[Any]) -> dict[bytes, int]:
        new = {
            digest: {
                "source": came.source,
                "medium": came.medium,
                "campaign": came.campaign,
                "term": came.term,
                "content": came.content,
                "utm_id": came.utm_id,
                "referrer": referrer,
                "network": social_network_of(came),
                "channel_group": int(came.group),
                "rules": RULES_VERSION,
            }
            for digest, (came, referrer) in self._arrivals.items()
        }
        return self._dictionary_ids(TrafficSource, {one.arrival for one in sessions}, new)

    def _dictionary_ids(
        self, model: type[WebPage | TrafficSource], digests: Collection[bytes], new: dict[bytes, dict[str, Any]]
    ) -> dict[bytes, int]:
        """The ids of dictionary entries by digest; inserts the new ones."""
        if not digests:
            return {}
        query = select(model.digest, model.id).where(model.digest.in_(digests))
        found = dict(self._connection.execute(query).all())
        missing = [{"digest": digest, **new[digest]} for digest in sorted(new) if digest not in found]
        if missing:
            self._upsert(model, ["digest"], missing, [])
            found = dict(self._connection.execute(query).all())
        return found


_MUTABLE_COLUMNS = (
    "last_at",
    "visitor",
    "send_id",
    "contact_id",
    "exit_id",
    "pages",
    "active_seconds",
    "scroll",
    "engaged",
)


def _visit_row(session: Any, pages: dict[bytes, int], arrivals: dict[bytes, int]) -> dict[str, Any]:
    return {
        "id": session.id,
        "started_at": from_micros(session.started),
        "last_at": from_micros(session.last),
        "visitor": session.visitor,
        "send_id": session.send_id,
        "contact_id": session.contact_id,
        "activity_id": session.activity_id,
        "traffic_source_id": arrivals[session.arrival],
        "entry_id": pages[session.entry],
        "exit_id": pages[session.exit],
        "pages": session.pages,
        "active_seconds": session.active,
        "scroll": session.scroll,
        "attributed_by": int(session.known),
        "label": session.label,
        "device": int(session.device),
        "engaged": session.engaged,
        "new": session.new,
        "first": session.first,
        "first_in_campaign": session.first_in_campaign,
        "browser": session.browser,
        "country": session.country,
    }
