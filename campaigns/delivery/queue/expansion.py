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
from campaigns.delivery.models import NEVER_SENT_STATES, OUTSIDE_WINDOW, Send, SendState, SkipReason
from campaigns.delivery.sends import send_windows
from campaigns.planning.models import Activity, ActivityStatus
from campaigns.planning.recipients import select_audience

CHUNK = 10_000
"""Contacts per transaction. It bounds how long SQLite's only writer is held (``tests/benchmarks/pipeline``, large)."""

_MAX_TRIES = 4
_RECIPIENT_CONSTRAINT = "uq_sends_activity_id_recipient_key_occasion"
_COLUMNS = ("id", "activity_id", "contact_id", "address", "recipient_key", "occasion", "version_id", "state", "reason")
_EXTRA_COLUMNS = ("due_at", "trackable", "attempts", "reply")


def expand(activity_id: int, chunk: int = CHUNK) -> None:
    """Insert the sends of a live activity's audience, ``chunk`` contacts per transaction.

    Stops early when the activity is no longer live.
    """
    while _expand_chunk_with_retry(activity_id, chunk):
        pass


def _expand_chunk_with_retry(activity_id: int, chunk: int) -> bool:
    """Expand one chunk; on an IntegrityError try again, up to _MAX_TRIES times.

    A contact that is merged or erased while PostgreSQL inserts its send violates the foreign key and fails the whole
    chunk. The next try no longer selects that contact.
    """
    for _ in range(_MAX_TRIES):
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
        remaining = select_audience(activity).where(Contact.id > activity.email.expanded_to)
        ids = remaining.with_only_columns(Contact.id).order_by(Contact.id).limit(chunk).subquery()
        last_id = session.scalar(select(func.max(ids.c.id)))
        if last_id is None:
            activity.email.expanded_at = clock.now()
            return False
        rows = _new_sends(session, activity, remaining.where(Contact.id <= last_id), chunk)
        session.execute(_insert_ignoring_existing(session, rows))
        _skip_merged_contacts(session, activity, last_id)
        activity.email.expanded_to = last_id
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


def _skip_merged_contacts(session: Session, activity: Activity, last_id: int) -> None:
    """Skip contacts of the chunk up to ``last_id`` that already have this mail under a merged contact's id.

    Contacts can be merged while the audience is expanded. The query starts at the few aliases instead of at each new
    send. It runs after the insert: from then on the foreign key's lock makes a concurrent merge wait for this
    transaction.
    """
    other_send = aliased(Send)
    merged_ids = session.scalars(
        select(ContactAlias.contact_id).where(
            ContactAlias.contact_id > activity.email.expanded_to,
            ContactAlias.contact_id <= last_id,
            exists().where(
                other_send.activity_id == activity.id,
                other_send.recipient_key == literal("c:") + cast(ContactAlias.merged_contact_id, String),
                other_send.occasion == "",
                other_send.state.not_in(NEVER_SENT_STATES),
            ),
        )
    ).all()
    if merged_ids:
        session.execute(
            update(Send)
            .where(
                db.in_ids(session, Send.contact_id, merged_ids), Send.activity_id == activity.id, Send.occasion == ""
            )
            .where(Send.recipient_key == literal("c:") + cast(Send.contact_id, String), Send.state == SendState.QUEUED)
            .values(state=SendState.SKIPPED, reason=SkipReason.MERGED, due_at=None)
            .execution_options(synchronize_session=False)
        )


def _new_sends(session: Session, activity: Activity, contacts: Select[Any], chunk: int) -> Select[Any]:
    """SELECT of the new sends of ``contacts``, at most ``chunk``, in the column order of _COLUMNS and _EXTRA_COLUMNS.

    Ids continue from the activity's highest send id.
    """
    zones_by_opening = send_windows.closed_zones(
        session, activity, contacts.with_only_columns(Contact.timezone).distinct()
    )
    lower_bound, upper_bound = (
        activity.id << 32,
        (activity.id + 1) << 32,
    )  # A range of the primary key: only its last row is read.
    highest_id = (
        session.scalar(select(func.max(Send.id)).where(Send.id > lower_bound, Send.id < upper_bound)) or lower_bound
    )
    chosen = contacts.with_only_columns(Contact.id, Contact.email, Contact.timezone, skip_reason().label("reason"))
    if session.get_bind().dialect.name == "postgresql":
        recipients = chosen.subquery()
        number: ColumnElement[Any] = func.row_number().over(order_by=recipients.c.id)
    else:  # row_number() would copy each row. LIMIT drops no row, but makes SQLite materialise the subquery.
        recipients = chosen.limit(chunk).subquery()
        number = recipients.c.id - activity.email.expanded_to
    now = literal(clock.now(), Send.due_at.type)
    closed = [
        (send_windows.in_zones(recipients.c.timezone, zones), literal(at, now.type))
        for at, zones in zones_by_opening.items()
    ]
    due_at = case(*closed, else_=now) if closed else now
    reason = case(
        (recipients.c.reason == "", case(*((where, OUTSIDE_WINDOW) for where, _ in closed), else_="")),
        else_=recipients.c.reason,
    )
    return select(
        highest_id + number,
        literal(activity.id, BigInteger),
        recipients.c.id,
        recipients.c.email,
        literal("c:") + cast(recipients.c.id, String),
        literal(""),
        literal(activity.email.version_id, BigInteger),
        case((recipients.c.reason == "", literal(SendState.QUEUED.value)), else_=literal(SendState.SKIPPED.value)),
        reason if closed else recipients.c.reason,
        due_at,
        literal(False),
        literal(0),
        literal(""),
    ).where(recipients.c.id > 0)  # SQLite reads ON CONFLICT after a SELECT without WHERE as a join's ON.


def _insert_ignoring_existing(session: Session, rows: Select[Any]) -> Insert:
    """INSERT … SELECT that ignores conflicts of the recipient constraint only, in the syntax of each dialect."""
    names = [*_COLUMNS, *_EXTRA_COLUMNS]
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(Send).from_select(names, rows).on_conflict_do_nothing(constraint=_RECIPIENT_CONSTRAINT)
    return (
        sqlite.insert(Send)
        .from_select(names, rows)
        .on_conflict_do_nothing(index_elements=["activity_id", "recipient_key", "occasion"])
    )
