"""A claimed slice with everything its mails are made of, loaded before any byte leaves."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, joinedload

from campaigns import clock
from campaigns.accounts.organisation import organisation
from campaigns.audience import consent
from campaigns.audience.models import ConsentLevel, ConsentPurpose, Contact
from campaigns.content.models import MessageVersion
from campaigns.db import Base
from campaigns.delivery.compose import Letter
from campaigns.delivery.models import Send
from campaigns.outbox import OutboxMail
from campaigns.planning.models import Activity

Row = TypeVar("Row", bound=Base)
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Slice:
    """What one batch sends, in order."""

    activity_id: int
    letters: Sequence[Letter]

    @property
    def ids(self) -> list[int]:
        return [letter.send.id for letter in self.letters]


def load(session: Session, activity_id: int, ids: Sequence[int]) -> Slice:
    """The letters of claimed sends. Writes down who of them may be measured as of now.

    Afterwards nothing in it needs the session any more.
    """
    sends = _by_id(session, Send, Send.id, ids)
    contacts = _by_id(session, Contact, Contact.id, _distinct(send.contact_id for send in sends.values()))
    versions = _by_id(session, MessageVersion, MessageVersion.id, _distinct(s.version_id for s in sends.values()))
    mails = _by_id(session, OutboxMail, OutboxMail.id, _distinct(send.outbox_id for send in sends.values()))
    activity = session.get_one(Activity, activity_id, options=[joinedload(Activity.campaign)])
    measured = _measured(session, contacts)
    house = organisation(session)
    for trackable in (True, False):  # A retry may come after consent was given or withdrawn.
        changed = [
            s.id for s in sends.values() if s.trackable is not trackable and (s.contact_id in measured) is trackable
        ]
        _write_trackable(session, changed, trackable)
    letters = [
        Letter(
            send=send,
            activity=activity,
            organisation=house,
            version=versions.get(send.version_id or 0),
            contact=contacts.get(send.contact_id or 0),
            outbox=mails.get(send.outbox_id or 0),
            trackable=activity.built_in == "test" or send.contact_id in measured,
        )
        for send in (sends[send_id] for send_id in sorted(sends))
    ]
    session.expunge_all()
    return Slice(activity_id, letters)


def _measured(session: Session, contacts: Collection[int]) -> set[int]:
    levels = consent.as_of(session, contacts, ConsentPurpose.TRACKING, clock.now())
    return {contact_id for contact_id, level in levels.items() if level is ConsentLevel.FULL}


def _write_trackable(session: Session, ids: Sequence[int], trackable: bool) -> None:
    for chunk in _chunks(ids):
        change = update(Send).where(Send.id.in_(chunk)).values(trackable=trackable)
        session.execute(change.execution_options(synchronize_session=False))


def _by_id(session: Session, entity: type[Row], key: InstrumentedAttribute[int], ids: Sequence[int]) -> dict[int, Row]:
    found: dict[int, Row] = {}
    for chunk in _chunks(ids):
        rows = session.scalars(select(entity).where(key.in_(chunk)).execution_options(populate_existing=True))
        found |= {getattr(row, key.key): row for row in rows}
    return found


def _distinct(ids: Iterator[int | None]) -> list[int]:
    return sorted({number for number in ids if number is not None})


def _chunks(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))
