"""Timeline of one contact: mails, hits, visits, forms, leads, conversions, consent and suppression, newest first.

Each kind of entry has a query of its own that is limited to one page; the results are merged by time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain

from sqlalchemy import ColumnElement, Select, and_, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.models import Organisation
from campaigns.audience.models import ConsentEntry, Contact, Suppression
from campaigns.capture.models import Form, Submission
from campaigns.content.models import Link, MessageVersion
from campaigns.content.rendering.renderer import recipient_fields, render_subject
from campaigns.delivery.models import Send, SendState, SkipReason
from campaigns.errors import NotFound
from campaigns.i18n import N_
from campaigns.leads.models import Lead
from campaigns.planning.models import Activity, Campaign
from tracking.bots import rules
from tracking.conversions.goals import goal_names
from tracking.models.conversions import (
    AttributionCredit,
    AttributionModel,
    Conversion,
    ConversionTouchpoint,
    CustomEvent,
)
from tracking.models.events import Event, HitKind, TrafficLabel
from tracking.models.visits import Visit, WebPage

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(9999, 1, 1, tzinfo=UTC)
_MAX_MAILS = 500


class EntryKind(StrEnum):
    """The kind of a timeline entry."""

    MAIL = "mail"
    BOUNCE = "bounce"
    UNSUBSCRIBE = "unsubscribe"
    HIT = "hit"
    FORM = "form"
    VISIT = "visit"
    EVENT = "event"
    LEAD = "lead"
    STAGE = "stage"
    CONVERSION = "conversion"
    CONSENT = "consent"
    SUPPRESSION = "suppression"


class EntryFilter(StrEnum):
    """The groups of entries that a timeline can be filtered by."""

    MAILS = "mails"
    HITS = "hits"
    VISITS = "visits"
    FORMS = "forms"
    LEADS = "leads"
    CONVERSIONS = "conversions"
    CONSENT = "consent"

    @property
    def label(self) -> str:
        return {
            self.MAILS: N_("Mails"),
            self.HITS: N_("Opens and clicks"),
            self.VISITS: N_("Visits and events"),
            self.FORMS: N_("Forms"),
            self.LEADS: N_("Leads"),
            self.CONVERSIONS: N_("Conversions"),
            self.CONSENT: N_("Consent and suppression"),
        }[self]


@dataclass(frozen=True, slots=True)
class CreditShare:
    """One activity's share (0–1) of a conversion under one attribution model; ``activity`` is its title."""

    model: AttributionModel
    activity: str
    share: float


@dataclass(frozen=True, slots=True)
class TouchpointView:
    """One touch before a conversion; ``event_id`` is set when it is a click in the event log."""

    at: datetime
    activity: str
    event_id: int | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a timeline. Fields that do not apply to its kind are None or empty.

    ``activity`` is a title. ``detail`` depends on the kind: the link's label, the form's title, the page's address,
    the event's name or the goal's name.
    """

    at: datetime
    entry_kind: EntryKind
    activity: str = ""
    campaign_id: int | None = None
    subject: str = ""
    send: Send | None = None
    kind: HitKind | None = None
    label: TrafficLabel | None = None
    event_id: int | None = None
    reasons: Sequence[rules.ReasonDetail] = ()
    detail: str = ""
    answers: dict[str, object] | None = None
    lead: Lead | None = None
    consent: ConsentEntry | None = None
    visit: Visit | None = None
    event: CustomEvent | None = None
    conversion: Conversion | None = None
    shares: Sequence[CreditShare] = ()
    touches: Sequence[TouchpointView] = ()
    suppression: Suppression | None = None

    @property
    def skip_reason(self) -> SkipReason | None:
        """The reason for a skipped send; None for every other entry."""
        known = self.send is not None and self.send.reason in {reason.value for reason in SkipReason}
        return SkipReason(self.send.reason) if known and self.send is not None else None

    @property
    def by_machine(self) -> bool:
        """Whether this is a hit or visit that is not labelled as human."""
        return self.label is not None and self.label is not TrafficLabel.HUMAN


@dataclass(frozen=True, slots=True)
class ContactTimeline:
    """One page of a contact's timeline, newest first."""

    contact: Contact
    entries: Sequence[Entry]
    next_before: datetime | None
    """Pass this instant as ``before`` to get the next page; None when there are no earlier entries."""


def build_timeline(
    session: Session,
    actor: Actor,
    contact_id: int,
    *,
    before: datetime | None = None,
    size: int = 50,
    topic: EntryFilter | None = None,
    people_only: bool = False,
) -> ContactTimeline:
    """Return the newest ``size`` entries of a contact before an instant, in about a dozen queries with a LIMIT.

    Entries of the same instant stay on one page, so a page can be longer than ``size``. ``people_only`` leaves out
    hits and visits that are not human. Raises NotFound when there is no such contact.
    """
    actor.require(Permission.PERSONAL)
    contact = session.get(Contact, contact_id)
    if contact is None:
        raise NotFound(N_("There is no such contact."))
    scope = _TimelineQuery(contact, before or _END, size + 1, people_only)
    candidates = [
        entry
        for load_entries in (_LOADERS[topic] if topic else chain.from_iterable(_LOADERS.values()))
        for entry in load_entries(session, scope)
        if entry.at < scope.before
    ]
    candidates.sort(key=lambda entry: entry.at, reverse=True)
    shown = candidates[:size]
    # The next page begins strictly before the last instant shown: entries of that instant must not be split.
    shown += [entry for entry in candidates[size:] if entry.at == shown[-1].at]
    entries = _with_subjects(session, contact, shown)
    return ContactTimeline(contact, entries, shown[-1].at if len(candidates) > len(shown) else None)


@dataclass(frozen=True, slots=True)
class _TimelineQuery:
    contact: Contact
    before: datetime
    size: int
    people_only: bool


def _with_subjects(session: Session, contact: Contact, entries: Sequence[Entry]) -> list[Entry]:
    """Merge the contact's values into the subjects, for the entries of this page only."""
    organisation = session.get(Organisation, 1)
    if organisation is None:
        return list(entries)
    return [
        replace(
            one, subject=render_subject(one.subject, recipient_fields(contact, one.detail, organisation)), detail=""
        )
        if one.subject
        else one
        for one in entries
    ]


def _newest_sends(scope: _TimelineQuery) -> Select[int]:
    """Select the contact's newest 500 sends before the instant; paging back reaches earlier ones.

    An open or click of a mail that was followed by 500 further mails before ``before`` is missing.
    """
    return (
        select(Send.id)
        .where(Send.contact_id == scope.contact.id, or_(Send.sent_at.is_(None), Send.sent_at < scope.before))
        .order_by(Send.id.desc())
        .limit(_MAX_MAILS)
    )


def _mail_entries(session: Session, scope: _TimelineQuery) -> list[Entry]:
    """Return an entry for each mail at the time the relay accepted it, and one each for its bounce and unsubscription.

    A send that never left (skipped, failed) is placed at the launch of its activity.
    """
    instants = sorted(_mail_instants(session, scope), key=lambda moment: moment[0], reverse=True)[: scope.size]
    query = (
        select(Send, Activity.title, Activity.campaign_id, Campaign.name, MessageVersion.subject)
        .join(Activity, Activity.id == Send.activity_id)
        .join(Campaign, Campaign.id == Activity.campaign_id)
        .outerjoin(MessageVersion, MessageVersion.id == Send.version_id)
        .where(Send.id.in_({id for _, id, _ in instants}))
    )
    # A subject may contain the campaign's name as a merge field: it is kept in ``detail`` until subjects are merged.
    mails = {
        send.id: Entry(
            _EPOCH, EntryKind.MAIL, title, campaign_id, subject=subject or "", send=send, detail=name if subject else ""
        )
        for send, title, campaign_id, name, subject in session.execute(query)
    }
    return [replace(mails[id], at=at, entry_kind=step) for at, id, step in instants]


def _mail_instants(session: Session, scope: _TimelineQuery) -> Iterator[tuple[datetime, int, EntryKind]]:
    query = (
        select(Send.id, Send.state, Activity.launched_at, Send.sent_at, Send.bounced_at, Send.unsubscribed_at)
        .join(Activity, Activity.id == Send.activity_id)
        # A test mail is rendered with one contact's values but sent to somebody else.
        .where(Send.id.in_(_newest_sends(scope)), Activity.built_in.is_distinct_from("test"))
    )
    for id, state, launched, sent, bounced, unsubscribed in session.execute(query):
        accepted = sent or (launched if state is not SendState.BOUNCED else None)
        for at, step in (
            (accepted, EntryKind.MAIL),
            (bounced, EntryKind.BOUNCE),
            (unsubscribed, EntryKind.UNSUBSCRIBE),
        ):
            if at is not None and at < scope.before:
                yield at, id, step


def _hit_entries(session: Session, scope: _TimelineQuery) -> list[Entry]:
    query = (
        select(Event, Activity.title, Activity.campaign_id, Link.label)
        .join(Send, Send.id == Event.send_id)
        .join(Activity, Activity.id == Event.activity_id)
        .outerjoin(Link, and_(Link.version_id == Send.version_id, Link.number == Event.link))
        .where(
            Event.send_id.in_(_newest_sends(scope)),
            Activity.built_in.is_distinct_from("test"),
            Event.at < scope.before,
            *_people_only_condition(scope, Event.label),
        )
        .order_by(Event.at.desc(), Event.id.desc())
        .limit(scope.size)
    )
    return [
        Entry(
            event.at,
            EntryKind.HIT,
            title,
            campaign_id,
            kind=HitKind(event.kind),
            label=TrafficLabel(event.label),
            event_id=event.id,
            reasons=rules.reason_details(event.reasons),
            detail=link or "",
        )
        for event, title, campaign_id, link in session.execute(query)
    ]


def _form_entries(session: Session, scope: _TimelineQuery) -> list[Entry]:
    query = (
        select(Submission, Form.title, Activity.title, Activity.campaign_id)
        .join(Form, Form.id == Submission.form_id)
        .join(Activity, Activity.id == Submission.activity_id)
        .where(Submission.contact_id == scope.contact.id, Submission.at < scope.before)
        .order_by(Submission.at.desc(), Submission.id.desc())
        .limit(scope.size)
    )
    return [
        Entry(submission.at, EntryKind.FORM, title, campaign_id, detail=form, answers=submission.answers)
        for submission, form, title, campaign_id in session.execute(query)
    ]


def _lead_entries(session: Session, scope: _TimelineQuery) -> list[Entry]:
    query = (
        select(Lead, Activity.title)
        .join(Activity, Activity.id == Lead.activity_id)
        .where(Lead.contact_id == scope.contact.id, Lead.created_at < scope.before)
        .order_by(Lead.created_at.desc(), Lead.id.desc())
        .limit(scope.size)
    )
    entries = []
    for lead, title in session.execute(query):
        entry = Entry(lead.created_at, EntryKind.LEAD, title, lead.campaign_id, lead=lead)
        entries.append(entry)
        if lead.stage_at is not None:
            entries.append(replace(entry, at=lead.stage_at, entry_kind=EntryKind.STAGE))
    return entries


def _consent_entries(session: Session, scope: _TimelineQuery) -> list[Entry]:
    query = (
        select(ConsentEntry)
        .where(ConsentEntry.contact_id == scope.contact.id, ConsentEntry.at < scope.before)
        .order_by(ConsentEntry.at.desc(), ConsentEntry.id.desc())
        .limit(scope.size)
    )
    return [Entry(entry.at, EntryKind.CONSENT, consent=entry) for entry in session.scalars(query)]


def _people_only_condition(scope: _TimelineQuery, label: InstrumentedAttribute[int]) -> list[ColumnElement[bool]]:
    return [label == TrafficLabel.HUMAN] if scope.people_only else []


def _visit_entries(session: Session, scope: _TimelineQuery) -> list[Entry]:
    query = (
        select(Visit, WebPage, Activity.title, Activity.campaign_id)
        .join(WebPage, WebPage.id == Visit.entry_id)
        .outerjoin(Activity, Activity.id == Visit.activity_id)
        .where(
            Visit.contact_id == scope.contact.id,
            Visit.started_at < scope.before,
            *_people_only_condition(scope, Visit.label),
        )
        .order_by(Visit.started_at.desc(), Visit.id.desc())
        .limit(scope.size)
    )
    return [
        Entry(
            visit.started_at,
            EntryKind.VISIT,
            title or "",
            campaign_id,
            label=TrafficLabel(visit.label),
            visit=visit,
            detail=page.address,
        )
        for visit, page, title, campaign_id in session.execute(query)
    ]


def _event_entries(session: Session, scope: _TimelineQuery) -> list[Entry]:
    query = (
        select(CustomEvent)
        .where(CustomEvent.contact_id == scope.contact.id, CustomEvent.at < scope.before)
        .order_by(CustomEvent.at.desc(), CustomEvent.id.desc())
        .limit(scope.size)
    )
    return [Entry(event.at, EntryKind.EVENT, detail=event.name, event=event) for event in session.scalars(query)]


def _conversion_entries(session: Session, scope: _TimelineQuery) -> list[Entry]:
    """Return the conversions, each with its touches in order and its credit shares."""
    query = (
        select(Conversion, Activity.title)
        .outerjoin(Activity, Activity.id == Conversion.activity_id)
        .where(Conversion.contact_id == scope.contact.id, Conversion.at < scope.before)
        .order_by(Conversion.at.desc(), Conversion.id.desc())
        .limit(scope.size)
    )
    rows = session.execute(query).all()
    if not rows:
        return []
    names, ids = goal_names(session), [conversion.id for conversion, _ in rows]
    shares, touches = _credit_shares(session, ids), _touchpoints(session, ids)
    return [
        Entry(
            one.at,
            EntryKind.CONVERSION,
            title or "",
            one.campaign_id,
            detail=names.get(one.goal, one.goal),
            conversion=one,
            shares=shares.get(one.id, ()),
            touches=touches.get(one.id, ()),
        )
        for one, title in rows
    ]


def _credit_shares(session: Session, ids: Sequence[int]) -> dict[int, list[CreditShare]]:
    query = (
        select(AttributionCredit, Activity.title)
        .join(Activity, Activity.id == AttributionCredit.activity_id)
        .where(AttributionCredit.conversion_id.in_(ids))
        .order_by(AttributionCredit.conversion_id, AttributionCredit.model, AttributionCredit.share.desc())
    )
    shares: dict[int, list[CreditShare]] = {}
    for credit, title in session.execute(query):
        shares.setdefault(credit.conversion_id, []).append(CreditShare(credit.model, title, credit.share))
    return shares


def _touchpoints(session: Session, ids: Sequence[int]) -> dict[int, list[TouchpointView]]:
    query = (
        select(ConversionTouchpoint, Activity.title)
        .join(Activity, Activity.id == ConversionTouchpoint.activity_id)
        .where(ConversionTouchpoint.conversion_id.in_(ids))
        .order_by(ConversionTouchpoint.conversion_id, ConversionTouchpoint.position)
    )
    touches: dict[int, list[TouchpointView]] = {}
    for touch, title in session.execute(query):
        event_id = touch.source_id if touch.kind == "click" else None
        touches.setdefault(touch.conversion_id, []).append(TouchpointView(touch.at, title, event_id))
    return touches


def _suppression_entries(session: Session, scope: _TimelineQuery) -> list[Entry]:
    query = select(Suppression).where(Suppression.address == scope.contact.email, Suppression.at < scope.before)
    return [Entry(one.at, EntryKind.SUPPRESSION, suppression=one) for one in session.scalars(query)]


_LOADERS: dict[EntryFilter, tuple[Callable[[Session, _TimelineQuery], list[Entry]], ...]] = {
    EntryFilter.MAILS: (_mail_entries,),
    EntryFilter.HITS: (_hit_entries,),
    EntryFilter.VISITS: (_visit_entries, _event_entries),
    EntryFilter.FORMS: (_form_entries,),
    EntryFilter.LEADS: (_lead_entries,),
    EntryFilter.CONVERSIONS: (_conversion_entries,),
    EntryFilter.CONSENT: (_consent_entries, _suppression_entries),
}
