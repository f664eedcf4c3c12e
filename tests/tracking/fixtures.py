"""A launched mailing with recipients, and requests for its pixels and links."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience import consent
from campaigns.audience.models import ConsentLevel, ConsentPurpose, Contact
from campaigns.content.models import Link, Message, MessageVersion
from campaigns.delivery.models import Send, SendState
from campaigns.planning.models import ActivityStatus
from campaigns.tokens import Purpose, mint_send_token
from campaigns.web.fast_path import with_fast_path
from tests.factories import make_activity, make_contact, make_message, make_organisation
from tracking.endpoints import page_script, pixels_and_redirects
from tracking.models.events import Event

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
URLS = ("https://example.org/one", "https://example.org/two", "https://example.org/three", "https://example.org/four")


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def wsgi_request(path: str, method: str = "GET", query: str = "", ip: str = "203.0.113.9", **headers: str) -> Answer:
    """The answer of the WSGI endpoints. Anything left to Flask is answered with status 418."""
    return call_wsgi(wsgi_environ(path, method, query, ip, **headers))


def wsgi_environ(
    path: str, method: str = "GET", query: str = "", ip: str = "203.0.113.9", **headers: str
) -> dict[str, Any]:
    given = {"user_agent": BROWSER, **headers}
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REMOTE_ADDR": ip,
        **{f"HTTP_{name.upper()}": value for name, value in given.items()},
    }


def call_wsgi(environ: dict[str, Any]) -> Answer:
    status_and_headers: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], *_: object) -> None:
        status_and_headers[:] = [int(status.split()[0]), dict(headers)]

    def flask(_environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("418 I'm a teapot", [])
        return (b"flask",)

    parts = with_fast_path(pixels_and_redirects.handle_request, with_fast_path(page_script.handle_request, flask))(
        environ, start
    )
    assert isinstance(parts, list) or status_and_headers[0] == 418, "granian hangs on an empty tuple"
    return Answer(status_and_headers[0], status_and_headers[1], b"".join(parts))


@dataclass
class Mailing:
    """An activity whose mails were sent to contacts with full consent."""

    activity_id: int
    version_id: int
    sends: list[int] = field(default_factory=list)
    contacts: list[int] = field(default_factory=list)

    def open(self, index: int = 0, **more: Any) -> Answer:
        return wsgi_request(f"/o/{self.token(index)}", **more)

    def click(self, number: int = 1, index: int = 0, **more: Any) -> Answer:
        return wsgi_request(f"/c/{self.token(index)}/{number}", **more)

    def token(self, index: int = 0) -> str:
        return mint_send_token(Purpose.ENGAGEMENT, self.sends[index])

    @property
    def anonymous_token(self) -> str:
        """The token without a recipient, as in mails to contacts without tracking consent."""
        return mint_send_token(Purpose.ENGAGEMENT, self.activity_id << 32)


def make_version(session: Session, message: Message | None = None, urls: Iterable[str] = URLS) -> MessageVersion:
    message = message or make_message(session)
    version = MessageVersion(
        message_id=message.id,
        content_hash=f"hash-{message.id}",
        subject="News",
        preheader="",
        mjml="",
        html="",
        text="",
        language="en",
        from_name="Example",
        from_email="news@example.org",
        reply_to="",
        created_at=clock.now(),
    )
    session.add(version)
    session.flush()
    session.add_all(
        Link(version_id=version.id, number=number, url=url, label=f"Link {number}")
        for number, url in enumerate(urls, 1)
    )
    session.flush()
    return version


def make_mailing(
    recipients: int = 1,
    urls: Iterable[str] = URLS,
    level: ConsentLevel = ConsentLevel.FULL,
    sent_at: datetime | None = None,
) -> Mailing:
    """Committed rows of a mailing that was sent at ``sent_at``, by default an hour ago."""
    sent_at = sent_at or clock.now() - timedelta(hours=1)
    with db.transaction() as session:
        make_organisation(session)
        version = make_version(session, urls=urls)
        activity = make_activity(
            session,
            version_id=version.id,
            status=ActivityStatus.LIVE,
            launched_at=sent_at,
            message_id=version.message_id,
        )
        mailing = Mailing(activity.id, version.id)
        for number in range(1, recipients + 1):
            contact = make_contact(session)
            set_tracking_consent(session, contact.id, level, sent_at - timedelta(days=1))
            mailing.contacts.append(contact.id)
            mailing.sends.append(add_send(session, mailing, contact, number, sent_at).id)
    return mailing


def add_send(session: Session, mailing: Mailing, contact: Contact, number: int, sent_at: datetime | None) -> Send:
    send = Send(
        id=mailing.activity_id << 32 | number,
        activity_id=mailing.activity_id,
        contact_id=contact.id,
        address=contact.email,
        recipient_key=f"c:{contact.id}",
        version_id=mailing.version_id,
        state=SendState.SENT,
        trackable=True,
        sent_at=sent_at,
    )
    session.add(send)
    session.flush()
    return send


def set_tracking_consent(session: Session, contact_id: int, level: ConsentLevel, at: datetime) -> None:
    """Record tracking consent of this level at ``at``; NONE withdraws it."""
    if level is ConsentLevel.NONE:
        consent.withdraw(session, SYSTEM, contact_id, ConsentPurpose.TRACKING, source="test", at=at)
    else:
        consent.grant(session, SYSTEM, contact_id, ConsentPurpose.TRACKING, level, source="test", at=at)


def events() -> list[Event]:
    with db.read_only_session() as session:
        return list(session.scalars(select(Event).order_by(Event.at, Event.id)))


def get_send(send_id: int) -> Send:
    with db.read_only_session() as session:
        return session.get_one(Send, send_id)
