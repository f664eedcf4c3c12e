"""A claimed slice with everything its mails are made of, loaded before any byte leaves."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from jinja2 import TemplateError
from sqlalchemy import Text, cast, select
from sqlalchemy.orm import InstrumentedAttribute, Session, joinedload

from campaigns import db
from campaigns.accounts.models import Organisation
from campaigns.accounts.organisation import organisation
from campaigns.audience.models import Contact
from campaigns.content.models import MessageVersion
from campaigns.db import Base
from campaigns.delivery import dkim_keys, plates
from campaigns.delivery.compose import Letter
from campaigns.delivery.dkim import Signer
from campaigns.delivery.plates import Plate
from campaigns.outbox import OutboxMail
from campaigns.planning.models import Activity

Known = TypeVar("Known", bound=Base)
Row = Sequence[Any]
"""What the database says of one claimed send: the columns OWN, then PERSON."""


class Claimed(NamedTuple):
    """A send's row, as much of it as its mail and its outcome need: a third of the cost of the whole."""

    id: int
    address: str
    attempts: int
    contact_id: int | None
    version_id: int | None
    outbox_id: int | None
    trackable: bool
    """Whether the contact may be measured, as of the claim."""


class Person(NamedTuple):
    """A contact's row, as much of it as can be merged."""

    email: str
    first_name: str
    last_name: str
    language: str | None
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Slice:
    """What one batch sends, in order.

    A letter is made when its turn has come: a thread that made a thousand at once would keep the connections waiting.
    """

    activity: Activity
    sends: Sequence[Claimed]
    _rows: Sequence[Row]
    _house: Organisation
    _versions: Mapping[int, MessageVersion]
    _mails: Mapping[int, OutboxMail]
    _plates: Mapping[tuple[int | None, bool], Plate]
    _signers: Mapping[int | None, Sequence[Signer]]

    def letter(self, position: int) -> Letter:
        """The letter to the recipient at a position; asks nothing of the database."""
        send = self.sends[position]
        version_id, trackable = send.version_id, _trackable(send, self.activity)
        return Letter(
            send,
            self.activity,
            self._house,
            self._versions.get(version_id or 0),
            _person(self._rows[position]),
            self._mails.get(send.outbox_id or 0),
            trackable,
            self._plates.get((version_id, trackable)),
            self._signers[version_id],
        )


def load(session: Session, activity_id: int, rows: Sequence[Row]) -> Slice:
    """The letters of claimed sends. Afterwards nothing in it needs the session any more."""
    sends = [Claimed._make(row[:_PERSON]) for row in rows]
    versions = _by_id(session, MessageVersion, MessageVersion.id, _distinct(send.version_id for send in sends))
    mails = _by_id(session, OutboxMail, OutboxMail.id, _distinct(send.outbox_id for send in sends))
    activity = session.get_one(Activity, activity_id, options=[joinedload(Activity.campaign)])
    house = organisation(session)
    made = {}
    for version_id, trackable in {(send.version_id, _trackable(send, activity)) for send in sends}:
        version = versions.get(version_id or 0)
        if version is not None and (plate := _plate(version, activity, house, trackable)) is not None:
            made[version_id, trackable] = plate
    signers = {
        version_id: _signers(session, versions.get(version_id or 0), house)
        for version_id in {send.version_id for send in sends}
    }
    session.expunge_all()
    return Slice(activity, sends, rows, house, versions, mails, made, signers)


def _trackable(send: Claimed, activity: Activity) -> bool:
    return bool(send.trackable) or activity.built_in == "test"


def _plate(version: MessageVersion, activity: Activity, house: Organisation, trackable: bool) -> Plate | None:
    """None when none can be made: each letter says why when it is composed, and gets its outcome."""
    try:
        return plates.plate(version, activity, house, trackable)
    except (ValueError, TemplateError):
        return None


def _signers(session: Session, version: MessageVersion | None, house: Organisation) -> Sequence[Signer]:
    try:
        _, address = plates.sender(version, house)
    except ValueError:
        return ()
    return dkim_keys.signers(session, address.rpartition("@")[2])


def _person(row: Row) -> Person | None:
    contact_id, email, first_name, last_name, language, attributes = row[_PERSON:_END]
    if contact_id is None:
        return None
    known = _scan(attributes, 0)[0] if attributes and attributes != "{}" else {}
    return Person(email, first_name, last_name, language, known)


OWN = Claimed._fields
# Attributes come as text: read here they cost a third of what the column's own type takes.
PERSON = (Contact.id, *(getattr(Contact, name) for name in Person._fields[:-1]), cast(Contact.attributes, Text))
_PERSON, _END = len(OWN), len(OWN) + len(PERSON)
# What loads() calls in the end, less its looks at blanks around.
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def _by_id(
    session: Session, entity: type[Known], key: InstrumentedAttribute[int], ids: Sequence[int]
) -> dict[int, Known]:
    asked = select(entity).where(db.among(session, key, ids)).execution_options(populate_existing=True)
    return {getattr(row, key.key): row for row in session.scalars(asked)} if ids else {}


def _distinct(ids: Iterator[int | None]) -> list[int]:
    return sorted({number for number in ids if number is not None})
