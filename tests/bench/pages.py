"""Milliseconds of the performance page's questions: ``python -m tests.bench.pages [events] [--full]``, both databases.

200 campaigns, filled in SQL: a tenth of all sends belong to one of them. ``--full`` is 10,000,000 events of
1,000,000 contacts. Times the functions that the page calls, best of five.
"""

import sys
import tempfile
import time
from collections.abc import Callable

from sqlalchemy import Engine

import wsgi  # noqa: F401  (knows every room, so that every table is known)
from campaigns import clock, config, db
from campaigns.accounts.actor import CLOCK
from campaigns.planning.models import Activity
from tests.bench import collector
from tests.factories import make_activity, make_campaign
from tests.tracking.scene import make_mailing
from tracking import performance

CAMPAIGNS, LIMIT, EVENTS_OF_A_SEND = 200, 20.0, 10


def main(events: int) -> int:
    missed = 0
    with collector.databases() as chosen, tempfile.TemporaryDirectory() as home:
        config.install(config.read({"KAMPANIA_VAR": home}))
        for url in chosen:
            engine = db.make_engine(url)
            db.Base.metadata.create_all(engine)
            db.install(engine)
            campaigns = fill(engine, events // EVENTS_OF_A_SEND)
            collector.say(f"{engine.dialect.name}: {events:,} events, {CAMPAIGNS} campaigns")
            for name, campaign_id in campaigns.items():
                missed += timed(f"performance of a {name} campaign", lambda one=campaign_id: page(one))  # type: ignore[misc]
            db.install(None)
            engine.dispose()
    return missed


def page(campaign_id: int) -> None:
    with db.reading() as session:
        performance.performance(session, CLOCK, campaign_id)


def fill(engine: Engine, sends: int) -> dict[str, int]:
    """A large and a middling campaign by what they are called."""
    mailing = make_mailing(1)
    series = collector.series(engine)
    with db.transaction() as session:
        large = session.get_one(Activity, mailing.activity_id).campaign_id
        others = []
        for _ in range(CAMPAIGNS - 1):
            campaign = make_campaign(session)
            others.append((campaign.id, make_activity(session, campaign=campaign, launched_at=clock.now()).id))
    columns = "contact_id, address, occasion, version_id, state, reason, trackable, attempts, reply, sent_at"
    sqlite = engine.dialect.name == "sqlite"
    one = f"(SELECT * FROM sends WHERE id = {mailing.sends[0]}) s"
    many = ((300, "g"), (3, "k"), (5, "l"))
    buckets, kinds, links = (series.format(n=n).replace("AS g", f"AS {name}") for n, name in many)
    at = "s.sent_at + g.n * 900000000" if sqlite else "s.sent_at + g.n * interval '15 min'"
    with engine.begin() as connection:
        each = [(mailing.activity_id, sends // 10), *((other, sends * 9 // 10 // len(others)) for _, other in others)]
        for activity_id, number in each:
            connection.exec_driver_sql(
                f"INSERT INTO sends (id, activity_id, recipient_key, {columns}) SELECT {activity_id << 32} + g.n,"
                f" {activity_id}, 'a:' || g.n, {columns} FROM {one}, {series.format(n=number + 1)}"
            )
            connection.exec_driver_sql(
                "INSERT INTO rollups (activity_id, bucket, kind, link, label, events, uniques)"
                f" SELECT {activity_id}, {at}, k.n - 1, 0, l.n - 1, {max(1, number // 100)}, 1"
                f" FROM {one}, {buckets}, {kinds}, {links}"
            )
    collector.analyse(engine)
    return {"large": large, "middling": others[0][0]}


def timed(name: str, work: Callable[[], None]) -> int:
    times = []
    for _ in range(6):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1000)
    best = min(times[1:])
    collector.say(f"  {name:<40}{best:>9.1f} ms  limit {LIMIT:.0f} ms {'MISSED' if best > LIMIT else 'met'}")
    return int(best > LIMIT)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--full"]
    sys.exit(main(10_000_000 if "--full" in sys.argv else int(words[0]) if words else 200_000))
