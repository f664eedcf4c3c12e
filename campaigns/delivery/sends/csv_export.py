"""CSV export of an activity's sends, one line per send."""

import csv
import io
from collections.abc import Iterable, Iterator

from sqlalchemy import select

from campaigns import db
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.imports.rejections import harmless
from campaigns.delivery.models import Send, SendState

NOT_REACHED = (SendState.BOUNCED, SendState.FAILED, SendState.HELD, SendState.UNKNOWN)
_HEAD = ("address", "state", "reason", "answer", "attempts", "sent_at", "bounced_at", "send")
_AT_ONCE = 1_000
_BOM = "\ufeff"  # Without a BOM Excel reads UTF-8 as the system code page.


def csv_of(actor: Actor, activity_id: int, states: Iterable[SendState]) -> Iterator[str]:
    """The CSV text in chunks of up to 1,000 lines, UTF-8 with BOM, ordered by send id.

    The rows are read in a session of their own, which ends with the iterator.
    """
    actor.require(Permission.EXPORT)
    return _pieces(activity_id, tuple(states))


def _pieces(activity_id: int, states: tuple[SendState, ...]) -> Iterator[str]:
    yield _BOM + _lines([_HEAD])
    last = 0
    asked = select(
        Send.id, Send.address, Send.state, Send.reason, Send.reply, Send.attempts, Send.sent_at, Send.bounced_at
    ).where(Send.activity_id == activity_id, Send.state.in_(states))
    with db.reading() as session:
        while rows := session.execute(asked.where(Send.id > last).order_by(Send.id).limit(_AT_ONCE)).all():
            last = rows[-1].id
            yield _lines(
                (
                    row.address,
                    row.state.value,
                    row.reason,
                    row.reply,
                    str(row.attempts),
                    row.sent_at.isoformat() if row.sent_at else "",
                    row.bounced_at.isoformat() if row.bounced_at else "",
                    str(row.id),
                )
                for row in rows
            )


def _lines(rows: Iterable[Iterable[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows([harmless(cell) for cell in row] for row in rows)
    return out.getvalue()
