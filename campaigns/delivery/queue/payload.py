"""A claimed slice with everything its mails are made of, loaded before any byte leaves."""

import json
from collections.abc import Collection, Mapping, Sequence
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
from campaigns.delivery.domains import dkim_keys
from campaigns.delivery.mime import mail_template
from campaigns.delivery.mime.compose import MailContext
from campaigns.delivery.mime.dkim import Signer
from campaigns.delivery.mime.mail_template import MailTemplate
from campaigns.outbox import OutboxMail
from campaigns.planning.models import Activity

Known = TypeVar("Known", bound=Base)
Row = Sequence[Any]
"""What the database says of one claimed send: the columns OWN, then PERSON."""


class ClaimedSend(NamedTuple):
    """A send's row, as much of it as its mail and its outcome need: a third of the cost of the whole."""

    id: int
    address: str
    attempts: int
    contact_id: int | None
    version_id: int | None
    outbox_id: int | None
    trackable: bool
    """Whether the contact may be measured, as of the claim."""


class MergeRow(NamedTuple):
    """A contact's row, as much of it as can be merged."""

    email: str
    first_name: str
    last_name: str
    language: str | None
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BatchContext:
    """What the letters of an activity share, read once for all slices of a shift."""

    activity: Activity
    house: Organisation
    versions: dict[int, MessageVersion]
    plates: dict[tuple[int | None, bool], MailTemplate]
    signers: dict[int | None, Sequence[Signer]]

    def prepare(self, session: Session, sends: Sequence[ClaimedSend]) -> None:
        """Read what these are printed with, as far as it isn't there yet."""
        wanted = {(send.version_id, _trackable(send, self.activity)) for send in sends} - self.plates.keys()
        ids = {version_id for version_id, _ in wanted} - self.signers.keys()
        self.versions.update(_by_id(session, MessageVersion, MessageVersion.id, ids))
        for version_id in ids:
            self.signers[version_id] = _signers(session, self.versions.get(version_id or 0), self.house)
        for version_id, trackable in wanted:
            version = self.versions.get(version_id or 0)
            if version is not None and (plate := _plate(version, self.activity, self.house, trackable)) is not None:
                self.plates[version_id, trackable] = plate


@dataclass(frozen=True, slots=True)
class BatchPayload:
    """What one batch sends, in order.

    A letter is made when its turn has come: a thread that made a thousand at once would keep the connections waiting.
    """

    press: BatchContext
    sends: Sequence[ClaimedSend]
    _rows: Sequence[Row]
    _mails: Mapping[int, OutboxMail]

    def letter(self, position: int) -> MailContext:
        """The letter to the recipient at a position; asks nothing of the database."""
        send, press = self.sends[position], self.press
        version_id, trackable = send.version_id, _trackable(send, press.activity)
        return MailContext(
            send,
            press.activity,
            press.house,
            press.versions.get(version_id or 0),
            _person(self._rows[position]),
            self._mails.get(send.outbox_id or 0),
            trackable,
            press.plates.get((version_id, trackable)),
            press.signers[version_id],
        )


def load(session: Session, activity_id: int, rows: Sequence[Row], press: BatchContext | None = None) -> BatchPayload:
    """The letters of claimed sends, made on ``press`` when the shift has one already. Afterwards nothing in it needs
    the session any more."""
    sends = [ClaimedSend._make(row[:_PERSON]) for row in rows]
    mails = _by_id(session, OutboxMail, OutboxMail.id, {send.outbox_id for send in sends})
    if press is None:
        activity = session.get_one(Activity, activity_id, options=[joinedload(Activity.campaign)])
        press = BatchContext(activity, organisation(session), {}, {}, {})
    press.prepare(session, sends)
    session.expunge_all()
    return BatchPayload(press, sends, rows, mails)


def _trackable(send: ClaimedSend, activity: Activity) -> bool:
    return bool(send.trackable) or activity.built_in == "test"


def _plate(version: MessageVersion, activity: Activity, house: Organisation, trackable: bool) -> MailTemplate | None:
    """None when none can be made: each letter says why when it is composed, and gets its outcome."""
    try:
        return mail_template.plate(version, activity, house, trackable)
    except (ValueError, TemplateError):
        return None


def _signers(session: Session, version: MessageVersion | None, house: Organisation) -> Sequence[Signer]:
    try:
        _, address = mail_template.sender(version, house)
    except ValueError:
        return ()
    return dkim_keys.signers(session, address.rpartition("@")[2])


def _person(row: Row) -> MergeRow | None:
    contact_id, email, first_name, last_name, language, attributes = row[_PERSON:_END]
    if contact_id is None:
        return None
    known = _scan(attributes, 0)[0] if attributes and attributes != "{}" else {}
    return MergeRow(email, first_name, last_name, language, known)


OWN = ClaimedSend._fields
# Attributes come as text: read here they cost a third of what the column's own type takes.
PERSON = (Contact.id, *(getattr(Contact, name) for name in MergeRow._fields[:-1]), cast(Contact.attributes, Text))
_PERSON, _END = len(OWN), len(OWN) + len(PERSON)
# What loads() calls in the end, less its looks at blanks around.
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def _by_id(
    session: Session, entity: type[Known], key: InstrumentedAttribute[int], ids: Collection[int | None]
) -> dict[int, Known]:
    known = sorted(number for number in ids if number is not None)
    asked = select(entity).where(db.among(session, key, known)).execution_options(populate_existing=True)
    return {getattr(row, key.key): row for row in session.scalars(asked)} if known else {}
