"""From a launched activity to one row per recipient.

Runs in chunks by contact id, each a transaction under the activity's lock (a row lock on
PostgreSQL; on SQLite every writing transaction begins IMMEDIATE and has the database alone).
It may be killed anywhere, started again, and run twice at once.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Insert,
    Select,
    String,
    case,
    cast,
    exists,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from campaigns import clock, db
from campaigns.audience import consent, suppression
from campaigns.audience.models import ConsentLevel, ConsentPurpose, Contact, ContactAlias
from campaigns.delivery.models import NEVER_SENT, WINDOW, Send, SendState, SkipReason
from campaigns.delivery.sends import send_windows
from campaigns.planning.models import Activity, ActivityStatus
from campaigns.planning.recipients import contacts_of

CHUNK = 10_000
"""Contacts a transaction: about 0.05 s of the writer's place on SQLite."""

_TRIES = 4
_RECIPIENT = "uq_sends_activity_id_recipient_key_occasion"
_COLUMNS = ("id", "activity_id", "contact_id", "address", "recipient_key", "occasion", "version_id", "state", "reason")
_MORE = ("due_at", "trackable", "attempts", "reply")


def expand(activity_id: int, chunk: int = CHUNK) -> None:
    """Make the sends of a live activity's audience; stops early when it isn't live any more."""
    while _tried(activity_id, chunk):
        pass


def _tried(activity_id: int, chunk: int) -> bool:
    """Who is merged or erased while PostgreSQL writes their row takes the whole chunk along; looked at again, they
    are not there any more."""
    for _ in range(_TRIES):
        try:
            return expand_chunk(activity_id, chunk)
        except IntegrityError:
            continue
    return expand_chunk(activity_id, chunk)


def expand_chunk(activity_id: int, chunk: int = CHUNK) -> bool:
    """Expand the next ``chunk`` contacts and say whether there may be more."""
    with db.transaction() as session:
        activity = session.scalar(select(Activity).where(Activity.id == activity_id).with_for_update(of=Activity))
        if activity is None or activity.status is not ActivityStatus.LIVE or activity.email.expanded_at is not None:
            return False
        rest = contacts_of(activity).where(Contact.id > activity.email.expanded_to)
        ids = rest.with_only_columns(Contact.id).order_by(Contact.id).limit(chunk).subquery()
        last = session.scalar(select(func.max(ids.c.id)))
        if last is None:
            activity.email.expanded_at = clock.now()
            return False
        rows = _rows(session, activity, rest.where(Contact.id <= last), chunk)
        session.execute(_ignoring_known_recipients(session, rows))
        _skip_known_by_another_name(session, activity, last)
        activity.email.expanded_to = last
    return True


def skip_reason() -> Any:
    """Why a Contact must not be mailed, '' when it may be; suppression wins over missing consent."""
    return case(
        (suppression.suppressed_sql(), literal(SkipReason.SUPPRESSED.value)),
        (
            func.coalesce(cast(consent.current_level_sql(ConsentPurpose.EMAIL), String), ConsentLevel.NONE.value)
            != ConsentLevel.FULL.value,
            literal(SkipReason.NO_CONSENT.value),
        ),
        else_=literal(""),
    )


def _skip_known_by_another_name(session: Session, activity: Activity, last: int) -> None:
    """Leave out those of the chunk up to ``last`` who get this mail already as one whom they were merged with while
    the audience was written.

    Few have ever been, and to ask for each would take as long as writing the rows. Asked when they are written:
    from then on whoever would merge one of them waits for us.
    """
    other = aliased(Send)
    known = session.scalars(
        select(ContactAlias.contact_id).where(
            ContactAlias.contact_id > activity.email.expanded_to,
            ContactAlias.contact_id <= last,
            exists().where(
                other.activity_id == activity.id,
                other.recipient_key == literal("c:") + cast(ContactAlias.merged_contact_id, String),
                other.occasion == "",
                other.state.not_in(NEVER_SENT),
            ),
        )
    ).all()
    if known:
        session.execute(
            update(Send)
            .where(db.among(session, Send.contact_id, known), Send.activity_id == activity.id, Send.occasion == "")
            .where(Send.recipient_key == literal("c:") + cast(Send.contact_id, String), Send.state == SendState.QUEUED)
            .values(state=SendState.SKIPPED, reason=SkipReason.MERGED, due_at=None)
            .execution_options(synchronize_session=False)
        )


def _rows(session: Session, activity: Activity, contacts: Select[Any], chunk: int) -> Select[Any]:
    """The new rows of ``contacts``, at most ``chunk``, numbered on from the activity's highest send."""
    waits = send_windows.openings(session, activity, contacts.with_only_columns(Contact.timezone).distinct())
    first, behind = activity.id << 32, (activity.id + 1) << 32  # By the key itself: no row is read but the last.
    base = session.scalar(select(func.max(Send.id)).where(Send.id > first, Send.id < behind)) or first
    chosen = contacts.with_only_columns(Contact.id, Contact.email, Contact.timezone, skip_reason().label("reason"))
    if session.get_bind().dialect.name == "postgresql":
        people = chosen.subquery()
        number: ColumnElement[Any] = func.row_number().over(order_by=people.c.id)
    else:  # A window costs a copy of each row. The limit leaves nobody out, but has SQLite ask for each reason once.
        people = chosen.limit(chunk).subquery()
        number = people.c.id - activity.email.expanded_to
    now = literal(clock.now(), Send.due_at.type)
    closed = [(send_windows.in_zones(people.c.timezone, zones), literal(at, now.type)) for at, zones in waits.items()]
    due_at = case(*closed, else_=now) if closed else now
    reason = case(
        (people.c.reason == "", case(*((where, WINDOW) for where, _ in closed), else_="")), else_=people.c.reason
    )
    return select(
        base + number,
        literal(activity.id, BigInteger),
        people.c.id,
        people.c.email,
        literal("c:") + cast(people.c.id, String),
        literal(""),
        literal(activity.email.version_id, BigInteger),
        case((people.c.reason == "", literal(SendState.QUEUED.value)), else_=literal(SendState.SKIPPED.value)),
        reason if closed else people.c.reason,
        due_at,
        literal(False),
        literal(0),
        literal(""),
    ).where(people.c.id > 0)  # SQLite reads ON CONFLICT after a SELECT without WHERE as a join's ON.


def _ignoring_known_recipients(session: Session, rows: Select[Any]) -> Insert:
    """Each dialect's way of saying: only this constraint's conflicts are ours to ignore."""
    names = [*_COLUMNS, *_MORE]
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(Send).from_select(names, rows).on_conflict_do_nothing(constraint=_RECIPIENT)
    return (
        sqlite.insert(Send)
        .from_select(names, rows)
        .on_conflict_do_nothing(index_elements=["activity_id", "recipient_key", "occasion"])
    )
