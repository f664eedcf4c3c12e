"""CSV export of an activity's sends, one line per send."""

import csv
import io
from collections.abc import Iterable, Iterator

from sqlalchemy import select

from campaigns import db
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.imports.rejections import neutralise_formula
from campaigns.delivery.models import Send, SendState

NOT_REACHED = (SendState.BOUNCED, SendState.FAILED, SendState.HELD, SendState.UNKNOWN)
_HEADER = ("address", "state", "reason", "answer", "attempts", "sent_at", "bounced_at", "send")
_CHUNK = 1_000
_BOM = "\ufeff"  # Without a BOM Excel reads UTF-8 as the system code page.


def export_csv(actor: Actor, activity_id: int, states: Iterable[SendState]) -> Iterator[str]:
    """The CSV text in chunks of up to 1,000 lines, UTF-8 with BOM, ordered by send id.

    The rows are read in a session of their own, which ends with the iterator.
    """
    actor.require(Permission.EXPORT)
    return _chunks(activity_id, tuple(states))


def _chunks(activity_id: int, states: tuple[SendState, ...]) -> Iterator[str]:
    yield _BOM + _format_rows([_HEADER])
    last_id = 0
    query = select(
        Send.id, Send.address, Send.state, Send.reason, Send.reply, Send.attempts, Send.sent_at, Send.bounced_at
    ).where(Send.activity_id == activity_id, Send.state.in_(states))
    with db.read_only_session() as session:
        while rows := session.execute(query.where(Send.id > last_id).order_by(Send.id).limit(_CHUNK)).all():
            last_id = rows[-1].id
            yield _format_rows(
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


def _format_rows(rows: Iterable[Iterable[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows([neutralise_formula(cell) for cell in row] for row in rows)
    return out.getvalue()
