"""Full-size dataset, generated in SQL: 200 campaigns, one of which has a tenth of all rows.

The rows are those that the collector, the workers and forms would leave; the counters are computed from them. Tables
are filled without indexes, which are created at the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, Index, Table, insert, text
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.accounts.models import Role
from campaigns.content.models import Link, MessageVersion
from campaigns.delivery.models import Send
from campaigns.delivery.sends import counters
from campaigns.planning.models import Activity, ActivityStatus, CampaignStatus, Channel
from tests import factories
from tracking.channels.channel_groups import ChannelGroup
from tracking.conversions import attribution_ledger
from tracking.counters import breakdowns, daily
from tracking.jobs import counter_check
from tracking.models.conversions import AttributionCredit, Conversion, ConversionTouchpoint
from tracking.models.events import Event, FirstSeen, HitRollup, SpoolCheckpoint, UserAgent
from tracking.models.visits import TrafficSource, Visit, VisitRollup, WebPage

CAMPAIGNS, MAILS_OF_LARGE_CAMPAIGN, LINKS, AGENTS, PAGES = 200, 10, 8, 200, 300
HEAVY_SENDS, HEAVY_HITS = 20_000, 2
"""History of the first contact: number of its sends, and events of each send."""
_DAY = 86_400_000_000


@dataclass(frozen=True)
class DatasetSize:
    events: int
    contacts: int
    visits: int
    conversions: int

    @classmethod
    def of(cls, events: int) -> "DatasetSize":
        return cls(events, max(1_000, events // 10), events // 5, events // 100)

    @property
    def sends(self) -> int:
        return self.events // 5


@dataclass
class CampaignRows:
    """Ids of one campaign's activities and form; ``share`` of all rows, start in microseconds."""

    id: int
    start: int
    share: float
    mails: list[int]
    others: list[int]
    form_id: int


class DatasetBuilder:
    def __init__(self, engine: Engine, size: DatasetSize, say: Callable[[str], None]) -> None:
        self.engine, self.size, self.report = engine, size, say
        self.postgres = engine.dialect.name == "postgresql"
        self.now = db.to_micros(clock.now())
        self.next_row = {"events": 0, "visits": 0, "conversions": 0}

    def build(self) -> None:
        db.Base.metadata.create_all(self.engine)
        db.set_engine(self.engine)
        with db.transaction() as session:
            campaigns = self._create_campaigns(session)
        indexes = self._drop_indexes()
        with self.engine.connect() as connection:
            self.connection = connection
            if self.postgres:
                connection.exec_driver_sql("SET session_replication_role = replica")
                connection.exec_driver_sql("SET work_mem = '256MB'")
                connection.commit()
            else:
                # The pragma has no effect inside a transaction, and SQLAlchemy begins one at the first statement.
                driver = connection.connection.driver_connection
                assert driver is not None
                driver.execute("PRAGMA foreign_keys = OFF")
                driver.execute("PRAGMA cache_size = -400000")
            self._timed_step("numbers", self._numbers)
            self._timed_step("contacts", self._contacts)
            self._timed_step("sends", lambda: self._for_each(self._sends, campaigns))
            self._timed_step("events", lambda: self._for_each(self._events, campaigns))
            self._timed_step("visits", lambda: self._for_each(self._visits, campaigns))
            self._timed_step("conversions", lambda: self._for_each(self._conversions, campaigns))
            self._timed_step("a long history", lambda: self._long_history(campaigns[-1]))
            self._timed_step("indexes", lambda: self._for_each(lambda index: index.create(connection), indexes))
            if not self.postgres:
                for statement in counters.SQLITE_TRIGGERS:
                    connection.exec_driver_sql(statement)
            self._timed_step("counters", lambda: self._counters(campaigns))
            self._timed_step("days", lambda: daily.rebuild(connection))
            self._timed_step("conversion_attributions", lambda: attribution_ledger.rebuild(connection))
            self._timed_step("sides", lambda: breakdowns.rebuild(connection))
            connection.exec_driver_sql("DROP TABLE bench_numbers")
            connection.commit()
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if self.postgres:
                connection.exec_driver_sql("VACUUM ANALYZE")
        self.engine.dispose()

    @staticmethod
    def _for_each(work: Callable[[Any], None], items: Sequence[Any]) -> None:
        for one in items:
            work(one)

    def _timed_step(self, name: str, work: Callable[[], object]) -> None:
        began = clock.now()
        work()
        self.connection.commit()
        self.report(f"    {name:<16}{(clock.now() - began).total_seconds():>7.1f} s")

    def _run(self, sql: str) -> None:
        self.connection.exec_driver_sql(sql.replace("%", "%%") if self.postgres else sql)

    def _at(self, micros: str) -> str:
        return f"(timestamptz 'epoch' + ({micros}) * interval '1 microsecond')" if self.postgres else f"({micros})"

    def _later(self, start: int, days: int, chance: str, power: int) -> str:
        """SQL of a time within ``days`` after ``start``; the higher ``power``, the more often soon after it."""
        grown = "*".join([f"({chance} / 2147483648.0)"] * power)
        least = "least" if self.postgres else "min"
        return self._at(f"{least}({self.now}, {start} + cast({grown} * {days * _DAY} AS bigint))")

    def _dice(self, number: int, first: int) -> str:
        """SQL subquery of ``n`` below ``number`` with three pseudo-random numbers a, b, c.

        ``a`` is below 2^31, ``b`` and ``c`` are below 2^19.
        """
        after = "({} * 1103515245 + 12345) % 2147483648".format
        one = f"SELECT n, {after(f'(n + {first + 1})')} AS a FROM bench_numbers WHERE n < {number}"
        two = f"SELECT n, a, {after('a')} AS b FROM ({one}) AS one"
        return f"(SELECT n, a, b / 4096 AS b, ({after('b')}) / 4096 AS c FROM ({two}) AS two) AS d"

    def _drop_indexes(self) -> list[Index]:
        """Drop the large tables' indexes and triggers; return the indexes."""
        tables: Sequence[Any] = [
            Send.__table__,
            Event.__table__,
            Visit.__table__,
            Conversion.__table__,
            ConversionTouchpoint.__table__,
            AttributionCredit.__table__,
            VisitRollup.__table__,
            HitRollup.__table__,
        ]
        indexes: list[Index] = []
        for table in tables:
            assert isinstance(table, Table)
            indexes += sorted(table.indexes, key=lambda index: str(index.name))
        with self.engine.begin() as connection:
            for index in indexes:
                index.drop(connection)
            if not self.postgres:
                for name in ("sends_inserted", "sends_updated", "sends_deleted"):
                    connection.exec_driver_sql(f"DROP TRIGGER {name}")
        return indexes

    # Planned objects are few, so they are created by the ORM.

    def _create_campaigns(self, session: Session) -> list[CampaignRows]:
        factories.make_organisation(session, timezone="Asia/Tbilisi")
        for role in Role:
            factories.make_user(session, role)
        session.add(SpoolCheckpoint(spool="s" * 32, host="localhost", updated_at=clock.now()))
        session.execute(
            insert(UserAgent),
            [
                {"digest": n.to_bytes(16, "big"), "text": f"Mozilla/5.0 (X11; rv:{n}.0) Gecko Firefox/{n}.0"}
                for n in range(AGENTS)
            ],
        )
        session.execute(
            insert(WebPage),
            [{"digest": n.to_bytes(16, "big"), "host": "www.example.org", "path": f"/{n}"} for n in range(PAGES)],
        )
        groups = list(ChannelGroup)
        arrival = dict.fromkeys(("source", "medium", "campaign", "term", "content", "utm_id", "referrer"), "")
        session.execute(
            insert(TrafficSource),
            [
                {
                    **arrival,
                    "digest": n.to_bytes(16, "big"),
                    "source": f"source{n}",
                    "network": "",
                    "channel_group": int(groups[n % len(groups)]),
                    "rules": 1,
                }
                for n in range(40)
            ],
        )
        message = factories.make_message(session)
        everybody = factories.make_contact(session)
        session.delete(everybody)
        small = 0.9 / (CAMPAIGNS - 1)
        return [self._campaign(session, message.id, n, small if n < CAMPAIGNS - 1 else 0.1) for n in range(CAMPAIGNS)]

    def _campaign(self, session: Session, message_id: int, number: int, share: float) -> CampaignRows:
        large = share >= 0.1
        start = clock.now() - timedelta(days=45 if large else 360 - number * 1.7)
        campaign = factories.make_campaign(
            session,
            created_at=start,
            starts_on=start.date(),
            ends_on=(start + timedelta(days=60)).date(),
            name=f"Campaign {number}",
            status=CampaignStatus.ACTIVE if number > 150 else CampaignStatus.FINISHED,
        )
        mails = [
            self._mail(session, campaign, message_id, start + timedelta(days=4 * n))
            for n in range(MAILS_OF_LARGE_CAMPAIGN if large else 2)
        ]
        others = [
            factories.make_activity(
                session,
                campaign,
                channel=channel,
                title=f"{channel.value} of {number}",
                cost=Decimal(300),
                everybody=False,
                status=ActivityStatus.LIVE,
                launched_at=start,
            )
            for channel in (Channel.WEB, Channel.ADS, Channel.SOCIAL)
        ]
        form = factories.make_form(session, others[0])
        session.flush()
        return CampaignRows(
            campaign.id, db.to_micros(start), share, [one.id for one in mails], [one.id for one in others], form.id
        )

    def _mail(self, session: Session, campaign: Any, message_id: int, at: datetime) -> Activity:
        activity = factories.make_activity(
            session, campaign, status=ActivityStatus.LIVE, launched_at=at, message_id=message_id, cost=Decimal(120)
        )
        version = MessageVersion(
            message_id=message_id,
            content_hash=f"{activity.id:064}",
            subject="News for {{ contact.first_name }}",
            preheader="",
            mjml="",
            html="",
            text="",
            language="en",
            from_name="",
            from_email="news@example.org",
            reply_to="",
            created_at=at,
        )
        version.links = [
            Link(number=n, url=f"https://www.example.org/{n}", label=f"Link {n}") for n in range(1, LINKS + 1)
        ]
        session.add(version)
        session.flush()
        activity.email.version_id = version.id
        return activity

    # Sends, events, visits and conversions.

    def _numbers(self) -> None:
        most = max(self.size.contacts, self.size.events // 8, HEAVY_SENDS * HEAVY_HITS) + 1
        self._run("CREATE TABLE bench_numbers (n bigint PRIMARY KEY)")
        source = (
            f"SELECT n FROM generate_series(0, {most}) AS g(n)"
            if self.postgres
            else f"WITH RECURSIVE g(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM g WHERE n < {most}) SELECT n FROM g"
        )
        self._run(f"INSERT INTO bench_numbers {source}")
        if self.postgres:
            self._run("ANALYZE bench_numbers")

    def _contacts(self) -> None:
        at = self._at(str(self.now - 400 * _DAY))
        self._run(
            "INSERT INTO contacts (id, email, first_name, last_name, language, timezone, attributes,"
            " source, created_at,"
            " updated_at) SELECT n + 1, 'p' || (n + 1) || '@example.net', 'Ana' || n, 'Bel',"
            " CASE WHEN n % 3 = 0 THEN 'ka' ELSE 'en' END, 'Asia/Tbilisi', '{}', '',"
            f" {at}, {at} FROM bench_numbers WHERE n < {self.size.contacts}"
        )
        for purpose in ("email", "tracking"):
            self._run(
                "INSERT INTO consent_log (contact_id, purpose, level, at, source, wording, evidence, recorded_by)"
                f" SELECT id, '{purpose}', 'full', created_at, 'form', '', '{{}}', '' FROM contacts"
            )

    def _random_contact(self, key: str, salt: int) -> str:
        """SQL of a contact id, pseudo-random by ``key``."""
        return f"(({key}) * 7919 + {salt * 104729}) % {self.size.contacts} + 1"

    def _sends(self, campaign: CampaignRows) -> None:
        number = int(self.size.sends * campaign.share) // len(campaign.mails)
        for activity_id in campaign.mails:
            with db.read_only_session() as session:
                activity = session.get_one(Activity, activity_id)
                assert activity.launched_at is not None
                version_id, launched = activity.email.version_id, db.to_micros(activity.launched_at)
            sent = self._at(f"{launched} + n * 50000")
            acted = self._later(launched, 30, "a", 6)
            self._run(
                "INSERT INTO sends (id, activity_id, contact_id, address, recipient_key, occasion, version_id, state,"
                " reason, trackable, attempts, reply, sent_at, first_opened_at, last_opened_at, clicked_at, bounced_at)"
                f" SELECT {activity_id << 32} + n + 1, {activity_id}, p, 'p' || p || '@example.net', 'c:' || p, '',"
                f" {version_id}, CASE WHEN c % 100 < 95 THEN 'sent' WHEN c % 100 < 98 THEN 'bounced'"
                " ELSE 'skipped' END,"
                " '', b % 10 > 0, 1, '250 ok',"
                f" CASE WHEN c % 100 < 95 THEN {sent} END, CASE WHEN c % 100 < 50 THEN {acted} END,"
                f" CASE WHEN c % 100 < 50 THEN {acted} END, CASE WHEN c % 100 < 12 THEN {acted} END,"
                f" CASE WHEN c % 100 IN (95, 96, 97) THEN {sent} END"
                f" FROM (SELECT n, a, b, c, {self._random_contact('n', activity_id)} AS p"
                f" FROM {self._dice(number, activity_id * 7)}) AS s"
            )

    def _events(self, campaign: CampaignRows) -> None:
        """Insert events: nine of ten of mails, the others views of the landing page."""
        views = int(self.size.events * campaign.share) // 10
        each = (int(self.size.events * campaign.share) - views) // len(campaign.mails)
        sends = int(self.size.sends * campaign.share) // len(campaign.mails)
        for n, activity_id in enumerate(campaign.mails):
            self._hits(
                activity_id,
                campaign.start + 4 * n * _DAY,
                each,
                f"{activity_id << 32} + 1 + n % {sends}",
                "CASE WHEN b % 5 < 3 THEN 1 ELSE 2 END",
                f"CASE WHEN b % 5 < 3 THEN 0 ELSE 1 + a % {LINKS} END",
            )
        self._hits(campaign.others[0], campaign.start, views, "NULL", "3", "0")

    def _hits(self, activity_id: int, start: int, number: int, send: str, kind: str, link: str) -> None:
        first = self.next_row["events"]
        self.next_row["events"] += number
        self._run(
            "INSERT INTO events (id, at, send_id, network, activity_id, user_agent_id, reasons, kind,"
            " label, rules, link)"
            f" SELECT {1 << 40} + ({first} + n) * 64, {self._later(start, 30, 'a', 6)}, {send}, 655360 + c % 60000,"
            f" {activity_id}, 1 + c % {AGENTS}, 0, {kind},"
            " CASE WHEN c % 100 < 50 THEN 1 WHEN c % 100 < 75 THEN 2 WHEN c % 100 < 93 THEN 3 ELSE 4 END, 1,"
            f" {link} FROM {self._dice(number, first)}"
        )

    def _visits(self, campaign: CampaignRows) -> None:
        number, first = int(self.size.visits * campaign.share), self.next_row["visits"]
        self.next_row["visits"] += number
        activity_cases = " ".join(
            f"WHEN {n} THEN {id}" for n, id in enumerate([*campaign.mails[-2:], *campaign.others])
        )
        yes = "true" if self.postgres else "1"
        self._run(
            "INSERT INTO visits (id, started_at, last_at, visitor, send_id, contact_id, activity_id, traffic_source_id,"
            " entry_id, exit_id, pages, active_seconds, scroll, attributed_by, label, device, engaged, new, first,"
            " first_in_campaign, browser, country)"
            f" SELECT {2 << 40} + ({first} + n) * 64, at, at, a * 4096 + c % 4096, NULL,"
            f" CASE WHEN c % 10 < 3 THEN {self._random_contact('c', campaign.id)} END, CASE b % 6 {activity_cases} END,"
            f" 1 + c % 40, 1 + b % {PAGES}, 1 + c % {PAGES}, 1 + c % 5, c % 300, 50, 2,"
            f" CASE WHEN c % 20 < 17 THEN 1 ELSE 3 END, 1 + b % 3, c % 2 = 0, b % 2 = 0, {yes}, {yes}, 'Firefox', 'GE'"
            f" FROM (SELECT d.*, {self._later(campaign.start, 60, 'a', 3)} AS at FROM {self._dice(number, first)}) AS v"
        )

    def _conversions(self, campaign: CampaignRows) -> None:
        """Insert conversions with two touches each: three of ten are purchases, the others leads."""
        number, first = int(self.size.conversions * campaign.share), self.next_row["conversions"]
        self.next_row["conversions"] += number
        activity_ids = [*campaign.mails[-2:], *campaign.others]
        activity = f"CASE b % 5 {' '.join(f'WHEN {n} THEN {id}' for n, id in enumerate(activity_ids))} END"
        other = f"CASE c % 5 {' '.join(f'WHEN {n} THEN {id}' for n, id in enumerate(activity_ids))} END"
        rows = (
            f"(SELECT {first} + n + 1 AS id, n, b, c, {self._later(campaign.start, 60, 'a', 3)} AS at,"
            f" {activity} AS one,"
            f" {other} AS two, {self._random_contact('n', campaign.id)} AS p FROM {self._dice(number, first)}) AS r"
        )
        yes, no = ("true", "false") if self.postgres else ("1", "0")
        self._run(
            "INSERT INTO leads (id, contact_id, campaign_id, activity_id, stage, source, notes,"
            " created_at, stage_processed)"
            f" SELECT id, p, {campaign.id}, one, 'new', 'web', '', at, {yes} FROM {rows} WHERE n % 10 < 7"
        )
        amount = "49.90" if self.postgres else "4990"
        self._run(
            "INSERT INTO conversions (id, external_id, goal, campaign_id, activity_id, contact_id, lead_id, amount,"
            " currency, value, at) SELECT id, 'bench:' || id, CASE WHEN n % 10 < 7 THEN 'lead' ELSE 'purchase' END,"
            f" {campaign.id}, one, p, CASE WHEN n % 10 < 7 THEN id END, CASE WHEN n % 10 > 6 THEN {amount} END, '',"
            f" CASE WHEN n % 10 > 6 THEN {amount} END, at FROM {rows}"
        )
        for position, whose, model in ((0, "one", "first_touch"), (1, "two", "last_touch")):
            self._run(
                "INSERT INTO conversion_touchpoints"
                " (conversion_id, position, activity_id, kind, source_id, at, settling)"
                f" SELECT id, {position}, {whose}, 'visit', id, at, {no} FROM {rows}"
            )
            self._run(
                "INSERT INTO attribution_credits (conversion_id, model, activity_id, share, touch)"
                f" SELECT id, '{model}', {whose}, 1, '{{}}' FROM {rows}"
            )

    def _long_history(self, campaign: CampaignRows) -> None:
        """Insert a long history of one contact: transactional mails over a year and their events."""
        activity_id, start = campaign.mails[0], self.now - 360 * _DAY
        sent = self._at(f"{start} + n * {360 * _DAY // HEAVY_SENDS}")
        self._run(
            "INSERT INTO sends (id, activity_id, contact_id, address, recipient_key, occasion, version_id, state,"
            " reason, trackable, attempts, reply, sent_at)"
            f" SELECT {(activity_id << 32) + (1 << 30)} + n, {activity_id}, 1, 'p1@example.net', 'e:' ||"
            " n, 'bench' || n,"
            f" (SELECT version_id FROM email_details WHERE activity_id = {activity_id}), 'sent', '',"
            f" {'true' if self.postgres else '1'}, 1, '250 ok', {sent} FROM bench_numbers WHERE n < {HEAVY_SENDS}"
        )
        hits = HEAVY_SENDS * HEAVY_HITS
        at = self._at(f"{start} + n * {360 * _DAY // hits}")
        self._run(
            "INSERT INTO events (id, at, send_id, network, activity_id, user_agent_id, reasons, kind,"
            " label, rules, link)"
            f" SELECT {3 << 40} + n * 64, {at}, {(activity_id << 32) + (1 << 30)} + n / {HEAVY_HITS}, 655360,"
            f" {activity_id}, 1, 0, 1 + n % 2, 1 + n % 3, 1, n % 2 FROM bench_numbers WHERE n < {hits}"
        )

    # Counters.

    def _counters(self, campaigns: Sequence[CampaignRows]) -> None:
        connection = self.connection
        at = (
            "coalesce(sent_at, bounced_at, timestamptz 'epoch')"
            if self.postgres
            else "ifnull(ifnull(sent_at, bounced_at), 0)"
        )
        bucket = f"date_bin('15 minutes', {at}, timestamptz 'epoch')" if self.postgres else f"{at} - {at} % 900000000"
        self._run(
            "INSERT INTO send_counts (activity_id, bucket, state, flags, shard, count)"
            f" SELECT activity_id, {bucket}, state, {counters._flags_sql('')}, 0, count(*) FROM sends"
            " WHERE occasion = ''"
            " GROUP BY 1, 2, 3, 4"
        )
        for campaign in campaigns:
            for activity_id in (*campaign.mails, campaign.others[0]):
                counter_check.insert_counters(connection, activity_id)
        start = (
            "date_bin('15 minutes', started_at, timestamptz 'epoch')"
            if self.postgres
            else "started_at - started_at % 900000000"
        )
        one = "sum(CASE WHEN {} THEN 1 ELSE 0 END)".format
        self._run(
            "INSERT INTO visit_rollups (activity_id, bucket, channel_group, label, visits, visitors, campaign_visitors,"
            f" engaged, active_seconds, pages, new, aggregate) SELECT coalesce(activity_id, 0), {start}, channel_group,"
            f" label, count(*), {one('first')}, {one('first_in_campaign')}, {one('engaged')}, sum(active_seconds),"
            f" sum(pages), {one('new')}, 0 FROM visits v JOIN traffic_sources w ON w.id = v.traffic_source_id"
            " GROUP BY 1, 2, 3, 4"
        )


def measured_ids(session: Session) -> dict[str, int]:
    """Return the ids to measure: a large and a middling campaign, contacts with long and usual history."""
    campaigns = session.execute(text("SELECT max(id), max(id) - 60 FROM campaigns WHERE NOT built_in")).one()
    plain = session.execute(
        text("SELECT contact_id FROM conversions WHERE contact_id > 1 ORDER BY id DESC LIMIT 1")
    ).scalar_one()
    return {"large": campaigns[0], "middling": campaigns[1], "plain": plain, "heavy": 1}


def row_counts(session: Session) -> dict[str, int]:
    tables = (Event, FirstSeen, HitRollup, Visit, VisitRollup, Conversion, counters.SendCount)
    return {
        one.__tablename__: session.execute(text(f"SELECT count(*) FROM {one.__tablename__}")).scalar_one()
        for one in tables
    }
