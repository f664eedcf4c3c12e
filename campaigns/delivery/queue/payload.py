"""Payload of a claimed batch: all data that its mails are composed of, loaded before the first byte is sent.

After loading no session is needed. CPU per mail of claiming and loading: ``tests/benchmarks/composing``.
"""

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

EntityT = TypeVar("EntityT", bound=Base)
Row = Sequence[Any]
"""One claimed send: the columns SEND_COLUMNS, then CONTACT_COLUMNS, then the reason not to mail it ('' here)."""


class ClaimedSend(NamedTuple):
    """The columns of a send that its mail and its result need. No ORM object is built for them."""

    id: int
    address: str
    attempts: int
    contact_id: int | None
    version_id: int | None
    outbox_id: int | None
    trackable: bool
    """Whether the contact's tracking consent was full at the time of the claim."""


class MergeRow(NamedTuple):
    """The columns of a contact that merge fields can read."""

    email: str
    first_name: str
    last_name: str
    language: str | None
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BatchContext:
    """Data that all mails of an activity share, read once for all batches of a worker's run."""

    activity: Activity
    organisation: Organisation
    versions: dict[int, MessageVersion]
    """By version id."""
    templates: dict[tuple[int | None, bool], MailTemplate]
    """Compiled templates by (version id, trackable)."""
    signers: dict[int | None, Sequence[Signer]]
    """DKIM signers by version id."""

    def load_missing(self, session: Session, sends: Sequence[ClaimedSend]) -> None:
        """Load the versions, templates and signers of ``sends`` that are not loaded yet."""
        missing = {(send.version_id, _trackable(send, self.activity)) for send in sends} - self.templates.keys()
        version_ids = {version_id for version_id, _ in missing} - self.signers.keys()
        self.versions.update(_load_by_id(session, MessageVersion, MessageVersion.id, version_ids))
        for version_id in version_ids:
            self.signers[version_id] = _load_signers(session, self.versions.get(version_id or 0), self.organisation)
        for version_id, trackable in missing:
            version = self.versions.get(version_id or 0)
            if (
                version is not None
                and (template := _compile_template(version, self.activity, self.organisation, trackable)) is not None
            ):
                self.templates[version_id, trackable] = template


@dataclass(frozen=True, slots=True)
class BatchPayload:
    """The sends of one batch, in order, with the data of their mails.

    Each mail's context is built when it is sent: a thread that built a thousand at once would hold the GIL and stall
    the connections.
    """

    context: BatchContext
    sends: Sequence[ClaimedSend]
    _rows: Sequence[Row]
    _outbox_mails: Mapping[int, OutboxMail]

    def mail_context(self, position: int) -> MailContext:
        """The context of the mail at ``position``. No database access."""
        send, context = self.sends[position], self.context
        version_id, trackable = send.version_id, _trackable(send, context.activity)
        return MailContext(
            send,
            context.activity,
            context.organisation,
            context.versions.get(version_id or 0),
            _merge_row(self._rows[position]),
            self._outbox_mails.get(send.outbox_id or 0),
            trackable,
            context.templates.get((version_id, trackable)),
            context.signers[version_id],
        )


def load(session: Session, activity_id: int, rows: Sequence[Row], context: BatchContext | None = None) -> BatchPayload:
    """Load the payload of claimed sends, with the run's ``context`` if it has one already.

    All objects are expunged: the payload does not need the session afterwards.
    """
    sends = [ClaimedSend._make(row[:_CONTACT_START]) for row in rows]
    outbox_mails = _load_by_id(session, OutboxMail, OutboxMail.id, {send.outbox_id for send in sends})
    if context is None:
        activity = session.get_one(Activity, activity_id, options=[joinedload(Activity.campaign)])
        context = BatchContext(activity, organisation(session), {}, {}, {})
    context.load_missing(session, sends)
    session.expunge_all()
    return BatchPayload(context, sends, rows, outbox_mails)


def _trackable(send: ClaimedSend, activity: Activity) -> bool:
    return bool(send.trackable) or activity.built_in == "test"


def _compile_template(
    version: MessageVersion, activity: Activity, organisation: Organisation, trackable: bool
) -> MailTemplate | None:
    """None when the template does not compile: then composing each mail raises the error, and it becomes its result."""
    try:
        return mail_template.build_template(version, activity, organisation, trackable)
    except (ValueError, TemplateError):
        return None


def _load_signers(session: Session, version: MessageVersion | None, organisation: Organisation) -> Sequence[Signer]:
    try:
        _, address = mail_template.resolve_sender(version, organisation)
    except ValueError:
        return ()
    return dkim_keys.signers(session, address.rpartition("@")[2])


def _merge_row(row: Row) -> MergeRow | None:
    contact_id, email, first_name, last_name, language, attributes = row[_CONTACT_START:_CONTACT_END]
    if contact_id is None:
        return None
    merge_attributes = _scan_json(attributes, 0)[0] if attributes and attributes != "{}" else {}
    return MergeRow(email, first_name, last_name, language, merge_attributes)


SEND_COLUMNS = ClaimedSend._fields
# Attributes are read as text and parsed below, without the JSON column type's result processor.
CONTACT_COLUMNS = (
    Contact.id,
    *(getattr(Contact, name) for name in MergeRow._fields[:-1]),
    cast(Contact.attributes, Text),
)
_CONTACT_START, _CONTACT_END = len(SEND_COLUMNS), len(SEND_COLUMNS) + len(CONTACT_COLUMNS)
# The scanner behind json.loads(), without its check for surrounding whitespace.
_scan_json = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def _load_by_id(
    session: Session, entity: type[EntityT], key: InstrumentedAttribute[int], ids: Collection[int | None]
) -> dict[int, EntityT]:
    sorted_ids = sorted(number for number in ids if number is not None)
    query = select(entity).where(db.in_ids(session, key, sorted_ids)).execution_options(populate_existing=True)
    return {getattr(row, key.key): row for row in session.scalars(query)} if sorted_ids else {}
