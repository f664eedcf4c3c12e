"""Verbs of links: short ones for channels that others send, and those of a mail that is out."""

import secrets
from collections.abc import Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from campaigns import clock, config
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.accounts.models import Organisation
from campaigns.content.models import Link
from campaigns.content.rendering import links as destinations
from campaigns.errors import Conflict, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_
from campaigns.planning import utm, validation
from campaigns.planning.models import Activity, Channel, LinkOverride, ShortLink

CODE_LENGTH = 8
ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
"""Lower case without 0, 1, i, l and o: a code may be read from paper. 31⁸ of them: a guess in ten million
meets one of 80,000 links."""
MOST = 1_000
"""Links of one activity."""
OFF = ""


def short_url(link: ShortLink) -> str:
    return f"{config.settings().tracking_url}/l/{link.code}"


def links_of(session: Session, activity: Activity) -> Sequence[ShortLink]:
    """The short links of an activity, newest first."""
    return session.scalars(
        select(ShortLink).where(ShortLink.activity_id == activity.id).order_by(ShortLink.number.desc())
    ).all()


def link_of(session: Session, activity: Activity, number: int) -> ShortLink:
    """Raises NotFound."""
    found = session.scalar(select(ShortLink).filter_by(activity_id=activity.id, number=number))
    if found is None:
        raise NotFound(N_("There is no such link."))
    return found


def create_link(session: Session, actor: Actor, activity: Activity, *, label: str, url: str) -> ShortLink:
    """A new short link with its UTM by rule. Raises Invalid, Conflict."""
    actor.require(Permission.PLAN)
    if activity.channel is Channel.EMAIL:
        raise Conflict(N_("Links in our own mails are tracked by themselves and need no short link."))
    label, url = label.strip(), url.strip()
    problems = [*validation.name("label", label), *_faults(session, url)]
    # The activity's row orders those who make links of it at the same time.
    session.execute(select(Activity.id).where(Activity.id == activity.id).with_for_update())
    number = session.scalar(select(func.max(ShortLink.number)).filter_by(activity_id=activity.id)) or 0
    if number >= MOST:
        problems.append(ValidationProblem(N_("An activity has at most %(most)s links."), params={"most": MOST}))
    if problems:
        raise ValidationFailed(problems)
    link = ShortLink(
        activity_id=activity.id,
        number=number + 1,
        code="".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH)),
        label=label,
        url=url,
        utm=utm.query(utm.rule(activity, label)),
        active=True,
        created_at=clock.now(),
        changed_at=clock.now(),
    )
    session.add(link)
    session.flush()
    audit.record(session, actor, "create", "short link", link.code, activity=activity.id, url=url)
    return link


def switch(session: Session, actor: Actor, link: ShortLink, *, active: bool) -> None:
    """Switch a short link on or off; what was printed stays printed, so it is never deleted."""
    actor.require(Permission.PLAN)
    if link.active is not active:
        link.active, link.changed_at = active, clock.now()
        session.flush()
        audit.record(session, actor, "enable" if active else "disable", "short link", link.code)


def lead(session: Session, actor: Actor, link: ShortLink, url: str) -> None:
    """Let a short link lead elsewhere. Raises Invalid."""
    actor.require(Permission.PLAN)
    url = url.strip()
    if problems := _faults(session, url):
        raise ValidationFailed(problems)
    if url != link.url:
        audit.record(session, actor, "redirect", "short link", link.code, before=link.url, url=url)
        link.url, link.changed_at = url, clock.now()
        session.flush()


def fault(session: Session, url: str) -> str | None:
    """Why ``url`` is no destination; merge fields have nobody to take their words from."""
    if "{" in url:
        return N_("Merge fields are possible in mails only.")
    own = session.scalar(select(Organisation.own_hosts).limit(1)) or []
    try:
        return destinations.fault(destinations.whole(url), destinations.own_hosts(own))
    except ValueError:
        return N_("The host of this address cannot be read.")


def _faults(session: Session, url: str) -> list[ValidationProblem]:
    found = fault(session, url)
    return [ValidationProblem(found, "url")] if found else []


def mail_links(session: Session, activity: Activity) -> list[tuple[Link, LinkOverride | None]]:
    """The links of a launched mail, each with what was changed of it since."""
    version_id = activity.email_details.version_id if activity.email_details is not None else None
    rows = session.execute(
        select(Link, LinkOverride)
        .outerjoin(LinkOverride, (LinkOverride.activity_id == activity.id) & (LinkOverride.number == Link.number))
        .where(Link.version_id == version_id)
        .order_by(Link.number)
    )
    return [(link, change) for link, change in rows]


def change_mail_link(session: Session, actor: Actor, activity: Activity, number: int, url: str | None) -> None:
    """From the next seconds on, a link of a live mail leads to ``url``; nowhere (OFF); or, with None,
    where the mail says again. Raises NotFound, Invalid."""
    actor.require(Permission.LAUNCH)
    version_id = activity.email_details.version_id if activity.email_details is not None else None
    link = session.scalar(select(Link).filter_by(version_id=version_id, number=number))
    if link is None:
        raise NotFound(N_("There is no such link."))
    if url and (problems := _faults(session, url)):
        raise ValidationFailed(problems)
    change = session.get(LinkOverride, (activity.id, number))
    if url is None:
        if change is not None:
            session.delete(change)
    elif change is None:
        session.add(LinkOverride(activity_id=activity.id, number=number, url=url, changed_at=clock.now()))
    else:
        change.url, change.changed_at = url, clock.now()
    session.flush()
    verb = "restore" if url is None else "redirect" if url else "disable"
    audit.record(session, actor, verb, "link", f"{activity.id}/{number}", **_urls(link.url, url))


def _urls(before: str, url: str | None) -> Mapping[str, str]:
    return {"mail": before, "url": url} if url else {"mail": before}
