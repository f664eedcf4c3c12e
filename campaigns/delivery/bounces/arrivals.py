"""What came back waits as a row, is read by the clock, and is forgotten after thirty days."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from campaigns import clock, db, setbacks
from campaigns.delivery import tripping
from campaigns.delivery.bounces import reading, recording
from campaigns.delivery.bounces.models import FOR_A_LOOK, RECORDED, Arrival, Finding, Way
from campaigns.delivery.bounces.reading import Notice
from campaigns.delivery.bounces.webhooks import notices_of
from campaigns.setbacks import Chore

KEPT = timedelta(days=30)
_PORTION = 100
_AGAIN = timedelta(seconds=5)
_PATIENCE = timedelta(minutes=20)
"""How long a bounce may come before its send's own result: longer than a relay may take to answer."""


def keep(session: Session, way: Way, digest: str, raw: bytes, at: datetime) -> bool:
    """Add a row; False, and only counted, when the very same came within thirty days."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = insert(Arrival).values(
        way=way, digest=digest, raw=raw, said="", recipient="", received_at=at, due_at=at, finding=None
    )
    added = session.scalar(row.on_conflict_do_nothing(index_elements=[Arrival.digest]).returning(Arrival.id))
    if added is None:
        recording.count(session, way, Finding.REPEATED, at)
    return added is not None


def settle_due() -> int:
    """Read and record what waits, one portion in one transaction; how many."""
    with db.transaction() as session:
        late = [int(subject) for subject in setbacks.put_off(session, Chore.BOUNCE)]
        ids = session.scalars(
            select(Arrival.id)
            .where(Arrival.finding.is_(None), Arrival.due_at <= clock.now(), Arrival.id.not_in(late))
            .order_by(Arrival.due_at, Arrival.id)
            .limit(_PORTION)
            .with_for_update(skip_locked=True)
        ).all()
        touched = setbacks.carry(session, Chore.BOUNCE, ids, lambda some: _settle(session, some)) if ids else []
    for activity_id in sorted(set(touched)):
        with db.transaction() as session:
            tripping.pause_if_harmful(session, activity_id)
    return len(ids)


def _settle(session: Session, ids: Sequence[int]) -> list[int]:
    """The activities that bounced or were complained about."""
    touched: list[int] = []
    for arrival in session.scalars(
        select(Arrival).where(Arrival.id.in_(ids)).order_by(Arrival.id).execution_options(populate_existing=True)
    ):
        try:
            with session.begin_nested():
                touched += _settle_one(session, arrival)
        except recording.TooEarly:
            arrival.due_at = clock.now() + _AGAIN
            if clock.now() - arrival.received_at > _PATIENCE:
                arrival.finding = Finding.UNREADABLE
        session.flush()
    return touched


def _settle_one(session: Session, arrival: Arrival) -> list[int]:
    touched, last = [], Notice(Finding.UNREADABLE)
    finding = Finding.UNREADABLE
    for notice in _notices(arrival):
        last, finding = notice, recording.record(session, notice, arrival.way, arrival.received_at)
        recording.count(session, arrival.way, finding, arrival.received_at)
        if finding in RECORDED and notice.send_id is not None:
            touched.append(notice.send_id >> 32)
    arrival.finding, arrival.said, arrival.recipient = finding, last.said[:500], last.recipient
    if finding not in FOR_A_LOOK:
        arrival.raw, arrival.recipient, arrival.said = None, "", ""
    return touched


def _notices(arrival: Arrival) -> Sequence[Notice]:
    raw = arrival.raw or b""
    if arrival.way in (Way.MTA, Way.COMMAND, Way.MAILBOX):
        return [reading.read(raw)]
    return notices_of(arrival.way, raw) or [Notice(Finding.DELIVERED)]


def forget_old() -> None:
    """Delete what is older than thirty days."""
    with db.transaction() as session:
        session.execute(delete(Arrival).where(Arrival.received_at < clock.now() - KEPT, Arrival.finding.is_not(None)))


def throw_away(session: Session, arrival_id: int) -> None:
    """Forget the words of one that somebody has looked at."""
    session.execute(update(Arrival).where(Arrival.id == arrival_id).values(raw=None, said="", recipient=""))
