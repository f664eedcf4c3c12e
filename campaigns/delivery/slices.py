"""A claimed slice with everything its mails are made of, loaded before any byte leaves."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
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
from campaigns.delivery.models import Send
from campaigns.delivery.plates import Plate
from campaigns.outbox import OutboxMail
from campaigns.planning.models import Activity

Row = TypeVar("Row", bound=Base)


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
    """What one batch sends, in order."""

    activity_id: int
    letters: Sequence[Letter]

    @property
    def ids(self) -> list[int]:
        return [letter.send.id for letter in self.letters]


def load(session: Session, activity_id: int, ids: Sequence[int]) -> Slice:
    """The letters of claimed sends. Afterwards nothing in it needs the session any more."""
    rows = _rows(session, ids)
    sends = [send for send, _ in rows]
    versions = _by_id(session, MessageVersion, MessageVersion.id, _distinct(send.version_id for send in sends))
    mails = _by_id(session, OutboxMail, OutboxMail.id, _distinct(send.outbox_id for send in sends))
    activity = session.get_one(Activity, activity_id, options=[joinedload(Activity.campaign)])
    house = organisation(session)
    made: dict[tuple[int, bool], Plate] = {}
    signers: dict[int | None, Sequence[Signer]] = {}
    letters = []
    for send, person in rows:
        trackable = send.trackable or activity.built_in == "test"
        version = versions.get(send.version_id or 0)
        plate = made.get((send.version_id or 0, trackable))
        if plate is None and version is not None:
            plate = _plate(version, activity, house, trackable)
            if plate is not None:
                made[version.id, trackable] = plate
        if send.version_id not in signers:
            signers[send.version_id] = _signers(session, version, house)
        mail = mails.get(send.outbox_id or 0)
        letters.append(Letter(send, activity, house, version, person, mail, trackable, plate, signers[send.version_id]))
    session.expunge_all()
    return Slice(activity_id, letters)


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


def _rows(session: Session, ids: Collection[int]) -> list[tuple[Claimed, Person | None]]:
    """Sends in order of their ids, each with its contact."""
    asked = (
        select(*(getattr(Send, name) for name in Claimed._fields), Contact.id, *_PERSON)
        .outerjoin(Contact, Contact.id == Send.contact_id)
        .where(db.among(session, Send.id, ids))
    )
    own = len(Claimed._fields)
    found = sorted(db.gathered(session, asked), key=itemgetter(0))
    return [(Claimed._make(row[:own]), _person(row[own + 1 :]) if row[own] else None) for row in found]


def _person(columns: Sequence[Any]) -> Person:
    attributes = columns[-1]
    return Person._make((*columns[:-1], _decode(attributes)[0] if attributes and attributes != "{}" else {}))


# Attributes come as text: read here they cost a third of what the column's own type takes.
_PERSON = (*(getattr(Contact, name) for name in Person._fields[:-1]), cast(Contact.attributes, Text))
_decode = json.JSONDecoder().raw_decode


def _by_id(session: Session, entity: type[Row], key: InstrumentedAttribute[int], ids: Sequence[int]) -> dict[int, Row]:
    asked = select(entity).where(db.among(session, key, ids)).execution_options(populate_existing=True)
    return {getattr(row, key.key): row for row in session.scalars(asked)} if ids else {}


def _distinct(ids: Iterator[int | None]) -> list[int]:
    return sorted({number for number in ids if number is not None})
