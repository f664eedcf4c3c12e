"""Link services: short links for channels sent elsewhere, and target overrides for links of launched mails."""

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
CODE_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
"""Lower case without 0, 1, i, l and o, because codes are also typed from print. 31⁸ codes: with 80,000 links, one
guess in ten million hits a link."""
MAX_LINKS = 1_000
"""Maximum number of short links of one activity."""
SWITCHED_OFF = ""


def short_url(link: ShortLink) -> str:
    """The absolute URL of a short link, on the tracking host."""
    return f"{config.settings().tracking_url}/l/{link.code}"


def list_links(session: Session, activity: Activity) -> Sequence[ShortLink]:
    """The short links of an activity, newest first."""
    return session.scalars(
        select(ShortLink).where(ShortLink.activity_id == activity.id).order_by(ShortLink.number.desc())
    ).all()


def get_link(session: Session, activity: Activity, number: int) -> ShortLink:
    """The activity's short link with this number. Raises NotFound."""
    link = session.scalar(select(ShortLink).filter_by(activity_id=activity.id, number=number))
    if link is None:
        raise NotFound(N_("There is no such link."))
    return link


def create_link(session: Session, actor: Actor, activity: Activity, *, label: str, url: str) -> ShortLink:
    """Create a short link with the UTM parameters of :mod:`campaigns.planning.utm`.

    Raises Conflict for an e-mail activity, ValidationFailed for a bad label or URL and when the activity has the
    maximum number of links.
    """
    actor.require(Permission.PLAN)
    if activity.channel is Channel.EMAIL:
        raise Conflict(N_("Links in our own mails are tracked by themselves and need no short link."))
    label, url = label.strip(), url.strip()
    problems = [*validation.check_name("label", label), *_url_problems(session, url)]
    # Locking the activity's row serialises concurrent calls, so that MAX(number) + 1 stays unique.
    session.execute(select(Activity.id).where(Activity.id == activity.id).with_for_update())
    number = session.scalar(select(func.max(ShortLink.number)).filter_by(activity_id=activity.id)) or 0
    if number >= MAX_LINKS:
        problems.append(ValidationProblem(N_("An activity has at most %(most)s links."), params={"most": MAX_LINKS}))
    if problems:
        raise ValidationFailed(problems)
    link = ShortLink(
        activity_id=activity.id,
        number=number + 1,
        code="".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_LENGTH)),
        label=label,
        url=url,
        utm=utm.encode_query(utm.build_parameters(activity, label)),
        active=True,
        created_at=clock.now(),
        changed_at=clock.now(),
    )
    session.add(link)
    session.flush()
    audit.record(session, actor, "create", "short link", link.code, activity=activity.id, url=url)
    return link


def set_link_active(session: Session, actor: Actor, link: ShortLink, *, active: bool) -> None:
    """Switch a short link on or off. Links are never deleted, because a printed code cannot be recalled."""
    actor.require(Permission.PLAN)
    if link.active is not active:
        link.active, link.changed_at = active, clock.now()
        session.flush()
        audit.record(session, actor, "enable" if active else "disable", "short link", link.code)


def redirect_link(session: Session, actor: Actor, link: ShortLink, url: str) -> None:
    """Change the target of a short link. Raises ValidationFailed."""
    actor.require(Permission.PLAN)
    url = url.strip()
    if problems := _url_problems(session, url):
        raise ValidationFailed(problems)
    if url != link.url:
        audit.record(session, actor, "redirect", "short link", link.code, before=link.url, url=url)
        link.url, link.changed_at = url, clock.now()
        session.flush()


def url_problem(session: Session, url: str) -> str | None:
    """The reason why ``url`` cannot be a link target, as a msgid; None when it can.

    Merge fields are refused, because a click on a short link is not tied to a contact.
    """
    if "{" in url:
        return N_("Merge fields are possible in mails only.")
    own_hosts = session.scalar(select(Organisation.own_hosts).limit(1)) or []
    try:
        return destinations.url_problem(destinations.to_ascii_url(url), destinations.own_hosts(own_hosts))
    except ValueError:
        return N_("The host of this address cannot be read.")


def _url_problems(session: Session, url: str) -> list[ValidationProblem]:
    problem = url_problem(session, url)
    return [ValidationProblem(problem, "url")] if problem else []


def mail_links(session: Session, activity: Activity) -> list[tuple[Link, LinkOverride | None]]:
    """The links of a launched mail by number, each with its override or None."""
    version_id = activity.email_details.version_id if activity.email_details is not None else None
    rows = session.execute(
        select(Link, LinkOverride)
        .outerjoin(LinkOverride, (LinkOverride.activity_id == activity.id) & (LinkOverride.number == Link.number))
        .where(Link.version_id == version_id)
        .order_by(Link.number)
    )
    return [(link, change) for link, change in rows]


def override_mail_link(session: Session, actor: Actor, activity: Activity, number: int, url: str | None) -> None:
    """Override the target of a link in a launched mail; it takes effect within seconds.

    ``url`` is the new target, :data:`SWITCHED_OFF` disables the link, None removes the override. Raises NotFound
    for an unknown number and ValidationFailed for a bad URL.
    """
    actor.require(Permission.LAUNCH)
    version_id = activity.email_details.version_id if activity.email_details is not None else None
    link = session.scalar(select(Link).filter_by(version_id=version_id, number=number))
    if link is None:
        raise NotFound(N_("There is no such link."))
    if url and (problems := _url_problems(session, url)):
        raise ValidationFailed(problems)
    override = session.get(LinkOverride, (activity.id, number))
    if url is None:
        if override is not None:
            session.delete(override)
    elif override is None:
        session.add(LinkOverride(activity_id=activity.id, number=number, url=url, changed_at=clock.now()))
    else:
        override.url, override.changed_at = url, clock.now()
    session.flush()
    action = "restore" if url is None else "redirect" if url else "disable"
    audit.record(session, actor, action, "link", f"{activity.id}/{number}", **_audit_urls(link.url, url))


def _audit_urls(before: str, url: str | None) -> Mapping[str, str]:
    return {"mail": before, "url": url} if url else {"mail": before}
