"""A website with the page script, and browser tabs that send its reports."""

import io
import json
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from sqlalchemy import select

from campaigns import db
from tests.factories import make_organisation
from tests.tracking.fixtures import BROWSER, Answer, call_wsgi, wsgi_environ
from tracking.collector import collector
from tracking.counters import breakdowns, daily
from tracking.endpoints import link_targets
from tracking.metrics.web_visits import SUMMED_FIELDS
from tracking.models.visits import PageView, Visit, VisitRollup

HOST = "shop.example"
_numbers = count(1)


def post_report(body: object, origin: str = f"https://{HOST}", ip: str = "203.0.113.9", **more: Any) -> Answer:
    """The answer of ``/e`` to a body: bytes unchanged, anything else as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = wsgi_environ("/e", "POST", ip=ip, **({"origin": origin} if origin else {}), **more)
    return call_wsgi({**given, "CONTENT_LENGTH": str(len(raw)), "wsgi.input": io.BytesIO(raw)})


def declare_own_hosts(*hosts: str) -> None:
    """Declare the organisation's own hosts and load them into this process."""
    with db.transaction() as session:
        make_organisation(session).own_hosts = list(hosts or (HOST,))
    link_targets.sync()


@dataclass
class Tab:
    """A page open in a browser tab. ``more`` are fields added to each report."""

    path: str = "/"
    host: str = HOST
    referrer: str = ""
    ip: str = "203.0.113.9"
    user_agent: str = BROWSER
    extra_fields: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    page: int = field(default_factory=lambda: next(_numbers))

    def report(self, kind: str = "v", active: int = 0, scroll: int = 0, **more: Any) -> "Tab":
        """Send a report: ``v`` view, ``h`` update, ``e`` event, ``o`` outbound link."""
        body = {
            "t": kind,
            "u": f"https://{self.host}{self.path}",
            "r": self.referrer,
            "p": self.page,
            "a": active,
            "s": scroll,
            **self.extra_fields,
            **more,
        }
        answer = post_report(body, f"https://{self.host}", self.ip, user_agent=self.user_agent, **self.headers)
        assert answer.status == 204, answer
        return self

    def navigate(self, path: str, **more: Any) -> "Tab":
        """Open another page of the same host in the same tab."""
        return Tab(
            path,
            self.host,
            f"https://{self.host}{self.path}",
            self.ip,
            self.user_agent,
            {**self.extra_fields, **more},
            self.headers,
        ).report()


def collect_visits() -> list[Visit]:
    """All visits after collecting. Asserts that page views and rollups agree with them."""
    collector.collect_once()
    with db.read_only_session() as session:
        found = list(session.scalars(select(Visit).order_by(Visit.started_at, Visit.id)))
        seen = session.scalars(select(PageView)).all()
    check_rollups(found)
    for visit in found:
        page_views = [view for view in seen if view.visit_id == visit.id]
        assert visit.pages == len(page_views)
        assert visit.active_seconds == sum(view.active_seconds for view in page_views)
    return found


def check_rollups(found: list[Visit], aggregate: int = 0) -> None:
    with db.read_only_session() as session:
        rollups = session.scalars(select(VisitRollup)).all()
        assert daily.find_differences(session.connection()) == []
        assert breakdowns.find_differences(session.connection()) == []
    counted = {name: sum(getattr(rollup, name) for rollup in rollups) for name in SUMMED_FIELDS}
    counted = {name: value - counted["aggregate"] if name == "visits" else value for name, value in counted.items()}
    recount = {
        "visits": len(found),
        "visitors": sum(v.first for v in found),
        "engaged": sum(v.engaged for v in found),
        "active_seconds": sum(v.active_seconds for v in found),
        "new": sum(v.new for v in found),
        "campaign_visitors": sum(v.first_in_campaign for v in found),
    }
    assert {name: counted[name] for name in recount} == recount
