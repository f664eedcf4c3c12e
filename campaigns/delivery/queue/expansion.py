"""Expansion of a launched activity's audience into one send per recipient.

Expansion runs in chunks by contact id. Each chunk is one transaction under the activity's lock (a row lock on
PostgreSQL; on SQLite every writing transaction begins IMMEDIATE and has the database alone). ``expanded_to`` is the
checkpoint and conflicts with known recipients are ignored, so expansion may be killed at any point, restarted, and run
twice at once.
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
"""Contacts per transaction. It bounds how long SQLite's only writer is held (``tests/benchmarks/pipeline``, large)."""

_TRIES = 4
_RECIPIENT = "uq_sends_activity_id_recipient_key_occasion"
_COLUMNS = ("id", "activity_id", "contact_id", "address", "recipient_key", "occasion", "version_id", "state", "reason")
_MORE = ("due_at", "trackable", "attempts", "reply")


def expand(activity_id: int, chunk: int = CHUNK) -> None:
    """Insert the sends of a live activity's audience, ``chunk`` contacts per transaction.

    Stops early when the activity is no longer live.
    """
    while _tried(activity_id, chunk):
        pass


def _tried(activity_id: int, chunk: int) -> bool:
    """Expand one chunk; on an IntegrityError try again, up to _MAX_TRIES times.

    A contact that is merged or erased while PostgreSQL inserts its send violates the foreign key and fails the whole
    chunk. The next try no longer selects that contact.
    """
    for _ in range(_TRIES):
        try:
            return expand_chunk(activity_id, chunk)
        except IntegrityError:
            continue
    return expand_chunk(activity_id, chunk)


def expand_chunk(activity_id: int, chunk: int = CHUNK) -> bool:
    """Expand the next ``chunk`` contacts. Returns whether there may be more."""
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
    """SQL: the SkipReason of a Contact of the enclosing query, '' when it may be mailed.

    Suppression takes precedence over missing consent.
    """
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
    """Skip contacts of the chunk up to ``last_id`` that already have this mail under a merged contact's id.

    Contacts can be merged while the audience is expanded. The query starts at the few aliases instead of at each new
    send. It runs after the insert: from then on the foreign key's lock makes a concurrent merge wait for this
    transaction.
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
    """SELECT of the new sends of ``contacts``, at most ``chunk``, in the column order of _COLUMNS and _EXTRA_COLUMNS.

    Ids continue from the activity's highest send id.
    """
    waits = send_windows.openings(session, activity, contacts.with_only_columns(Contact.timezone).distinct())
    first, behind = activity.id << 32, (activity.id + 1) << 32  # A range of the primary key: only its last row is read.
    base = session.scalar(select(func.max(Send.id)).where(Send.id > first, Send.id < behind)) or first
    chosen = contacts.with_only_columns(Contact.id, Contact.email, Contact.timezone, skip_reason().label("reason"))
    if session.get_bind().dialect.name == "postgresql":
        people = chosen.subquery()
        number: ColumnElement[Any] = func.row_number().over(order_by=people.c.id)
    else:  # row_number() would copy each row. LIMIT drops no row, but makes SQLite materialise the subquery.
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
    """INSERT … SELECT that ignores conflicts of the recipient constraint only, in the syntax of each dialect."""
    names = [*_COLUMNS, *_MORE]
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(Send).from_select(names, rows).on_conflict_do_nothing(constraint=_RECIPIENT)
    return (
        sqlite.insert(Send)
        .from_select(names, rows)
        .on_conflict_do_nothing(index_elements=["activity_id", "recipient_key", "occasion"])
    )
