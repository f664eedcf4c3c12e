"""One contact's story: what they were sent, what they did, and what happened by itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.models import Organisation
from campaigns.audience.models import ConsentEntry, Contact
from campaigns.capture.models import Form, Submission
from campaigns.content.merge import fields_of, subject_for
from campaigns.content.models import Link, MessageVersion
from campaigns.delivery.models import Send, SendState, SkipReason
from campaigns.errors import NotFound
from campaigns.language import N_
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity, Campaign
from tracking import screening
from tracking.models import Event, Kind, Label

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(9999, 1, 1, tzinfo=UTC)
_MOST_MAILS = 500


class Step(StrEnum):
    """What an entry of the story tells."""

    MAIL = "mail"
    BOUNCE = "bounce"
    UNSUBSCRIBE = "unsubscribe"
    HIT = "hit"
    FORM = "form"
    LEAD = "lead"
    CONSENT = "consent"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened, newest first in a story. What does not apply is None or empty."""

    at: datetime
    step: Step
    activity: str = ""
    campaign_id: int | None = None
    subject: str = ""
    send: Send | None = None
    kind: Kind | None = None
    label: Label | None = None
    event_id: int | None = None
    reasons: Sequence[screening.Spoken] = ()
    detail: str = ""
    answers: dict[str, object] | None = None
    lead: Lead | None = None
    consent: ConsentEntry | None = None

    @property
    def skip_reason(self) -> SkipReason | None:
        known = self.send is not None and self.send.reason in {reason.value for reason in SkipReason}
        return SkipReason(self.send.reason) if known and self.send is not None else None

    @property
    def by_machine(self) -> bool:
        """Whether this is a hit that no person is known to have made."""
        return self.label is not None and self.label is not Label.HUMAN


@dataclass(frozen=True, slots=True)
class Story:
    contact: Contact
    entries: Sequence[Entry]
    earlier: datetime | None
    """Ask again for what lies before this instant; None at the beginning of the story."""


def story(session: Session, actor: Actor, contact_id: int, *, before: datetime | None = None, size: int = 50) -> Story:
    """What happened to and by this contact before an instant, in six queries. Raises NotFound."""
    actor.require(Permission.PERSONAL)
    contact = session.get(Contact, contact_id)
    if contact is None:
        raise NotFound(N_("There is no such contact."))
    limit = before or _END
    found = [
        entry
        for part in (_mails, _hits, _forms, _leads, _consent)
        for entry in part(session, contact_id, limit, size + 1)
        if entry.at < limit
    ]
    found.sort(key=lambda entry: entry.at, reverse=True)
    shown = found[:size]
    # Things of one instant stay together, or the next page would begin after half of them.
    shown += [entry for entry in found[size:] if entry.at == shown[-1].at]
    return Story(contact, shown, shown[-1].at if len(found) > len(shown) else None)


def _mails(session: Session, contact_id: int, _before: datetime, _size: int) -> list[Entry]:
    """Each mail when the relay took it, and what came back: a bounce, an unsubscription."""
    query = (
        select(Send, Activity, Campaign.name, MessageVersion.subject)
        .join(Activity, Activity.id == Send.activity_id)
        .join(Campaign, Campaign.id == Activity.campaign_id)
        .outerjoin(MessageVersion, MessageVersion.id == Send.version_id)
        # A test mail carries somebody's values to somebody else.
        .where(Send.contact_id == contact_id, Activity.built_in.is_distinct_from("test"))
        .order_by(Send.id.desc())
        .limit(_MOST_MAILS)
    )
    entries = []
    contact, ours = session.get_one(Contact, contact_id), session.get(Organisation, 1)
    for send, activity, campaign, subject in session.execute(query):
        read = subject_for(subject or "", fields_of(contact, campaign, ours)) if ours else subject or ""
        mail = Entry(_EPOCH, Step.MAIL, activity.title, activity.campaign_id, subject=read, send=send)
        moments = (
            (send.sent_at or (activity.launched_at if send.state is not SendState.BOUNCED else None), Step.MAIL),
            (send.bounced_at, Step.BOUNCE),
            (send.unsubscribed_at, Step.UNSUBSCRIBE),
        )
        entries += [replace(mail, at=at, step=step) for at, step in moments if at is not None]
    return entries


def _hits(session: Session, contact_id: int, before: datetime, size: int) -> list[Entry]:
    query = (
        select(Event, Activity.title, Activity.campaign_id, Link.label)
        .join(Send, Send.id == Event.send_id)
        .join(Activity, Activity.id == Event.activity_id)
        .outerjoin(Link, and_(Link.version_id == Send.version_id, Link.number == Event.link))
        .where(Send.contact_id == contact_id, Activity.built_in.is_distinct_from("test"), Event.at < before)
        .order_by(Event.at.desc(), Event.id.desc())
        .limit(size)
    )
    return [
        Entry(
            event.at, Step.HIT, title, campaign_id, kind=Kind(event.kind), label=Label(event.label),
            event_id=event.id,
            reasons=screening.why(event.reasons), detail=link or "",
        )
        for event, title, campaign_id, link in session.execute(query)
    ]  # fmt: skip


def _forms(session: Session, contact_id: int, before: datetime, size: int) -> list[Entry]:
    query = (
        select(Submission, Form.title, Activity.title, Activity.campaign_id)
        .join(Form, Form.id == Submission.form_id)
        .join(Activity, Activity.id == Submission.activity_id)
        .where(Submission.contact_id == contact_id, Submission.at < before)
        .order_by(Submission.at.desc(), Submission.id.desc())
        .limit(size)
    )
    return [
        Entry(submission.at, Step.FORM, title, campaign_id, detail=form, answers=submission.answers)
        for submission, form, title, campaign_id in session.execute(query)
    ]


def _leads(session: Session, contact_id: int, before: datetime, size: int) -> list[Entry]:
    query = (
        select(Lead, Activity.title)
        .join(Activity, Activity.id == Lead.activity_id)
        .where(Lead.contact_id == contact_id, Lead.created_at < before)
        .order_by(Lead.created_at.desc(), Lead.id.desc())
        .limit(size)
    )
    return [
        Entry(lead.created_at, Step.LEAD, title, lead.campaign_id, lead=lead) for lead, title in session.execute(query)
    ]


def _consent(session: Session, contact_id: int, before: datetime, size: int) -> list[Entry]:
    query = (
        select(ConsentEntry)
        .where(ConsentEntry.contact_id == contact_id, ConsentEntry.at < before)
        .order_by(ConsentEntry.at.desc(), ConsentEntry.id.desc())
        .limit(size)
    )
    return [Entry(entry.at, Step.CONSENT, consent=entry) for entry in session.scalars(query)]
