"""Which worker owns which sends, and what becomes of those whose worker died.

A claim is a compare-and-swap in one transaction. It holds for a lease that outlasts the longest
wait for a relay's last answer, so whoever takes over never races a mail that may still go out.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache, partial
from operator import itemgetter

from sqlalchemy import Integer, bindparam, case, false, literal, or_, select, true, update
from sqlalchemy.orm import Session

from campaigns import clock, db, setbacks
from campaigns.audience import consent
from campaigns.audience.models import ConsentLevel, ConsentPurpose, Contact
from campaigns.delivery import capping, journal, requested, slices, waiting
from campaigns.delivery.expansion import skip_reason
from campaigns.delivery.journal import Mark
from campaigns.delivery.models import Send, SendState, SkipReason
from campaigns.delivery.slices import Row
from campaigns.delivery.smtp import FINAL_DOT
from campaigns.outbox import OutboxMail
from campaigns.planning.models import Activity, ActivityStatus
from campaigns.setbacks import Chore

LARGEST = 1_000
LEASE = timedelta(seconds=FINAL_DOT + 300)
_LOOKS = 10
"""Slices of sends outside of their window that one claim passes over."""
_MICROS = LEASE // timedelta(microseconds=1)
_RENEW_BELOW = _MICROS - 240_000_000


def claim(session: Session, activity_id: int, batch: str, limit: int) -> list[Row]:
    """Take up to ``limit`` due sends of a live activity for ``batch``; of each, in order of their ids, the columns
    that :func:`campaigns.delivery.slices.load` makes its letter of.

    Whoever may not be mailed any more (suppressed, consent withdrawn since the audience was
    frozen) becomes skipped here, in the same transaction, and is not among them.
    """
    activity = session.get(Activity, activity_id, populate_existing=True)
    if activity is None or not _may_send(activity):
        return []
    taken: list[Row] = []
    for state in (SendState.QUEUED, SendState.DEFERRED):
        taken += _take(session, activity, state, batch, min(limit, LARGEST) - len(taken))
    enough = capping.over(session, batch, [row[_ID] for row in taken]) if activity.built_in is None else set()
    _skip(session, enough, SkipReason.CAPPED)
    return sorted((row for row in taken if row[_ID] not in enough), key=itemgetter(_ID))


def may_send(session: Session, activity_id: int) -> bool:
    """Whether the activity is live and its time isn't over (the built-in ones always are)."""
    activity = session.get(Activity, activity_id, populate_existing=True)
    return activity is not None and _may_send(activity)


def _may_send(activity: Activity) -> bool:
    in_time = activity.stop_after is None or clock.now() < activity.stop_after
    return activity.built_in is not None or (activity.status is ActivityStatus.LIVE and in_time)


def _take(session: Session, activity: Activity, state: SendState, batch: str, limit: int) -> list[Row]:
    """Due sends whose window is open; those whose is closed wait for it from now on."""
    taken: list[Row] = []
    for _ in range(_LOOKS):
        rows = _next(session, activity, state, limit - len(taken)) if limit > len(taken) else []
        late = waiting.put_off(session, activity, [row[_ID] for row in rows])
        rows = [row for row in rows if row[_ID] not in late]
        for reason in {row[_WHY] for row in rows if row[_WHY]}:
            _skip(session, [row[_ID] for row in rows if row[_WHY] == reason], reason, state)
        taken += _swap(session, [row for row in rows if not row[_WHY]], state, batch)
        if not late:
            break
    return taken


_ID, _MEASURED, _WHY = 0, slices.OWN.index("trackable"), -1


def _next(session: Session, activity: Activity, state: SendState, limit: int) -> list[Row]:
    asked = _due(activity.built_in if activity.built_in in (None, "api") else "test")
    return asked.rows(session, activity=activity.id, state=state, now=clock.now(), most=limit)


@lru_cache
def _due(built_in: str | None) -> db.Gathering:
    """Everything about the next ones in one question: their columns, their contacts', whether they may be measured
    and why they may not be mailed.

    One state at a time, in the order of the index: nothing is sorted. On SQLite the writing transaction has the
    database alone and FOR UPDATE is left out.
    """
    now = bindparam("now", type_=Send.due_at.type)
    due = (
        select(*(getattr(Send, name) for name in slices.OWN))
        .where(Send.activity_id == bindparam("activity"), Send.state == bindparam("state"), Send.due_at <= now)
        .order_by(Send.due_at)
        .limit(bindparam("most", type_=Integer))
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    level = consent.level_sql(ConsentPurpose.TRACKING, now)
    given = {"trackable": case((level == ConsentLevel.FULL, true()), else_=false())}
    # Nobody withholds a test mail or a system mail from whom it was asked for.
    why = {None: skip_reason(), "api": requested.refusal(due.c.address)}.get(built_in, literal(""))
    return db.Gathering(
        select(*(given.get(name, due.c[name]) for name in slices.OWN), *slices.PERSON, why)
        .select_from(due)
        .outerjoin(Contact, Contact.id == due.c.contact_id)  # an erased one allows nothing
        .outerjoin(OutboxMail, OutboxMail.id == due.c.outbox_id)
    )


def _swap(session: Session, rows: Sequence[Row], state: SendState, batch: str) -> Sequence[Row]:
    """Those of the rows that are ours from now on: nearly always all, since they were locked."""
    swapped = 0
    for measured in {row[_MEASURED] for row in rows}:
        ids = [row[_ID] for row in rows if row[_MEASURED] == measured]
        claimed = (
            update(Send)
            .where(db.among(session, Send.id, ids), Send.state == state)
            # Whether it may be measured is written here and not when it is composed: each row changes once.
            .values(state=SendState.SENDING, claimed_by=batch, lease_until=clock.now() + LEASE, reason="")
            .values(trackable=bool(measured))
            .execution_options(synchronize_session=False)
        )
        swapped += session.connection().execute(claimed).rowcount
    if swapped == len(rows):
        return rows
    mine = db.among(session, Send.id, [row[_ID] for row in rows]), Send.claimed_by == batch
    ours = set(session.scalars(select(Send.id).where(*mine)))
    return [row for row in rows if row[_ID] in ours]


def skip_refused(session: Session, ids: Collection[int]) -> set[int]:
    """Turn those of ``ids`` whose contact refuses mail by now into skipped rows; their ids."""
    found = refused(session, ids)
    for reason in set(found.values()):
        _skip(session, [send_id for send_id, given in found.items() if given == reason], reason)
    return set(found)


def refused(session: Session, ids: Collection[int]) -> dict[int, str]:
    """Those of ``ids`` whose contact refuses mail by now, and why."""
    why = case((Activity.built_in.is_(None), skip_reason()), else_=requested.refusal()).label("why")
    asked = (
        select(Send.id, why)
        .select_from(Send)
        .outerjoin(Contact, Contact.id == Send.contact_id)  # an erased one allows nothing
        .outerjoin(OutboxMail, OutboxMail.id == Send.outbox_id)
        .outerjoin(Activity, Activity.id == Send.activity_id)  # It exists; joined so, SQLite begins with the ids.
        .where(db.among(session, Send.id, ids), or_(Activity.built_in.is_(None), Activity.built_in == "api"))
        .subquery()
    )
    return dict(session.execute(select(asked).where(asked.c.why != "")).all()) if ids else {}


def _skip(session: Session, ids: Collection[int], reason: str, state: SendState = SendState.SENDING) -> None:
    if ids:
        session.execute(
            update(Send)
            .where(db.among(session, Send.id, ids), Send.state == state)
            .values(state=SendState.SKIPPED, reason=reason, claimed_by=None, lease_until=None, due_at=None)
            .execution_options(synchronize_session=False)
        )


class Lease:
    """The worker's side of a claim: renewed in time, or the worker must stop before the next dot."""

    def __init__(self, batch: str) -> None:
        self.batch = batch
        self._until = clock.micros() + _MICROS

    def hold(self) -> bool:
        """Whether the next mail may go out under this lease."""
        return self._until - clock.micros() > _RENEW_BELOW or self._renew()

    def _renew(self) -> bool:
        until = clock.now() + LEASE
        with db.transaction() as session:
            held = session.scalars(
                update(Send)
                .where(Send.claimed_by == self.batch, Send.state == SendState.SENDING)
                .where(Send.lease_until > clock.now())
                .values(lease_until=until)
                .returning(Send.id)
                .execution_options(synchronize_session=False)
            ).all()
        if held:
            self._until = db.to_micros(until)
        return bool(held)


def release(session: Session, batch: str, ids: Collection[int], due_at: datetime | None = None) -> None:
    """Give untouched sends back; they are as due as they were, or due at ``due_at``, and have used no attempt."""
    later = {} if due_at is None else {"due_at": due_at}
    session.execute(
        update(Send)
        .where(db.among(session, Send.id, ids), Send.claimed_by == batch, Send.state == SendState.SENDING)
        .values(state=SendState.QUEUED, claimed_by=None, lease_until=None, **later)
        .execution_options(synchronize_session=False)
    )


def take_over() -> int:
    """Settle what dead workers left behind; how many sends that were.

    This host's journal says exactly how far each mail got, and at once, since a dead owner's lock
    is free. Of batches without a journal here nothing is known: when their lease has run out
    they become unknown. Should their host come back, its journal still corrects that.
    """
    settled: list[int] = []
    for orphan in journal.orphans():
        setbacks.alone(Chore.TAKE_OVER, orphan.batch, partial(_settle_into, settled, orphan))
    return sum(settled) + _expire()


def _settle_into(settled: list[int], orphan: journal.Journal) -> None:
    settled.append(_settle(orphan))


_AFTERWARDS: Mapping[Mark, SendState] = {
    Mark.TODO: SendState.QUEUED,
    Mark.INTENT: SendState.UNKNOWN,
    Mark.OK: SendState.SENT,
    # Not mailed, and what the relay said is lost: ask it again.
    Mark.REJECTED: SendState.QUEUED,
    Mark.DEFERRED: SendState.QUEUED,
}


def _settle(orphan: journal.Journal) -> int:
    marks = orphan.marks()
    with db.transaction() as session:
        left = _left(session, orphan.batch, list(marks))
        for state in set(_AFTERWARDS.values()):
            ids = [send_id for send_id in left if _AFTERWARDS[marks.get(send_id, Mark.TODO)] is state]
            _assign(session, orphan.batch, ids, state)
    orphan.delete()
    return len(left)


def _left(session: Session, batch: str, ids: list[int]) -> list[int]:
    """The batch's sends without an outcome: those under lease (few, by its index), and those of the
    journal whose lease ran out while nobody could read it."""
    leased = Send.lease_until.is_not(None), Send.state == SendState.SENDING
    expired = db.among(session, Send.id, ids), Send.state == SendState.UNKNOWN
    return [
        send_id
        for which in (leased, expired)
        for send_id in session.scalars(select(Send.id).where(Send.claimed_by == batch, *which))
    ]


def _assign(session: Session, batch: str, ids: list[int], state: SendState) -> None:
    values: dict[str, object] = {"state": state, "lease_until": None}
    if state is SendState.QUEUED:
        values |= {"claimed_by": None}
    elif state is SendState.SENT:
        values |= {"sent_at": clock.now(), "due_at": None, "reply": "250 (from the journal)"}
    else:
        values |= {"due_at": None, "reply": ""}
    if ids:
        session.execute(
            update(Send)
            .where(db.among(session, Send.id, ids), Send.claimed_by == batch)
            .values(values)
            .execution_options(synchronize_session=False)
        )


def _expire() -> int:
    """Leases that ran out, of hosts we can't ask. A living batch of ours renews or stops by itself."""
    overdue = Send.lease_until < clock.now(), Send.state == SendState.SENDING
    with db.reading() as session:
        batches = set(session.scalars(select(Send.claimed_by).where(*overdue).distinct())) - journal.living()
    if not batches:
        return 0
    with db.transaction() as session:
        lost = session.scalars(
            update(Send)
            .where(*overdue, or_(Send.claimed_by.in_(batches - {None}), Send.claimed_by.is_(None)))
            .values(state=SendState.UNKNOWN, lease_until=None, due_at=None)
            .returning(Send.id)
            .execution_options(synchronize_session=False)
        ).all()
    return len(lost)
