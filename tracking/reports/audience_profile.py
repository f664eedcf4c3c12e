"""Audience profile of a campaign: languages, time zones, mail programs and devices of its recipients.

A bounded sample: the newest 1,000 recipients of each of the newest 5 mailings, and their newest 1,000 events.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.models import Contact
from campaigns.delivery.models import Send, SendState
from campaigns.planning.models import Activity, Channel
from tracking.collector.user_agents import client_and_system
from tracking.metrics.registry import share
from tracking.models.events import NEWEST_FIRST, Event, TrafficLabel, UserAgent

MAX_MAILINGS, MAX_PER_MAILING = 5, 1_000
_MAX_ROWS = 8


@dataclass(frozen=True, slots=True)
class ProfileShare:
    """One value, its count, and its share (0–1) of all known values."""

    name: str
    number: int
    share: float | None


@dataclass(frozen=True, slots=True)
class AudienceProfile:
    """Sample sizes (``recipients``, ``hits``) and the most frequent values of each attribute, most frequent first."""

    recipients: int
    languages: Sequence[ProfileShare]
    zones: Sequence[ProfileShare]
    hits: int
    programs: Sequence[ProfileShare]
    systems: Sequence[ProfileShare]


def build_profile(session: Session, actor: Actor, campaign_id: int) -> AudienceProfile:
    """Return the profile from at most 5,000 recipients and as many hits. It contains aggregates only, no person."""
    actor.require(Permission.VIEW)
    newest = session.scalars(
        select(Activity.id)
        .where(Activity.campaign_id == campaign_id, Activity.channel == Channel.EMAIL)
        .where(Activity.launched_at.is_not(None))
        .order_by(Activity.id.desc())
        .limit(MAX_MAILINGS)
    ).all()
    languages, zones, programs, systems = (Counter[str]() for _ in range(4))
    recipients = hits = 0
    for activity_id in newest:
        for language, zone, number in _contact_counts(session, activity_id):
            recipients += number
            languages[language or ""] += number
            zones[zone or ""] += number
        for text, number in _user_agent_counts(session, activity_id):
            hits += number
            program, system = client_and_system(text or "")
            programs[program] += number
            systems[system] += number
    return AudienceProfile(
        recipients, _top_shares(languages), _top_shares(zones), hits, _top_shares(programs), _top_shares(systems)
    )


def _contact_counts(session: Session, activity_id: int) -> Iterable[tuple[str | None, str | None, int]]:
    # Send ids are activity_id << 32 | number: the newest are the end of an id range, so the others are not read.
    newest = (
        select(Send.contact_id)
        .where(Send.id >= activity_id << 32, Send.id < (activity_id + 1) << 32, Send.state == SendState.SENT)
        .order_by(Send.id.desc())
        .limit(MAX_PER_MAILING)
        .subquery()
    )
    query = select(Contact.language, Contact.timezone, func.count()).join(newest, newest.c.contact_id == Contact.id)
    return [(row[0], row[1], row[2]) for row in session.execute(query.group_by(Contact.language, Contact.timezone))]


def _user_agent_counts(session: Session, activity_id: int) -> Iterable[tuple[str | None, int]]:
    newest = (
        select(Event.user_agent_id, Event.label)
        .where(Event.activity_id == activity_id)
        .order_by(*NEWEST_FIRST)
        .limit(MAX_PER_MAILING)
        .subquery()
    )
    query = (
        select(UserAgent.text, func.count())
        .join(newest, newest.c.user_agent_id == UserAgent.id)
        .where(newest.c.label == TrafficLabel.HUMAN)
        .group_by(UserAgent.text)
    )
    return [(row[0], row[1]) for row in session.execute(query)]


def _top_shares(counted: Counter[str]) -> list[ProfileShare]:
    """Return the most frequent values first; empty values are left out of the list and of the shares."""
    known = sum(number for name, number in counted.items() if name)
    return [ProfileShare(name, number, share(number, known)) for name, number in counted.most_common() if name][
        :_MAX_ROWS
    ]
