"""Mail that a lower room wants sent: a row, found and sent by delivery's tick.

A verb writes the row in its own transaction, so a mail is asked for exactly when the fact that it
tells of is committed.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, Session, mapped_column

from campaigns import clock
from campaigns.db import Address, Base, Document, Id, Instant

TRANSACTIONAL = "transactional"
"""The kind of a mail that a program requested and that needs no consent."""


class OutboxMail(Base):
    """One system mail to one person; ``kind`` names its template in ``templates/emails/system``."""

    __tablename__ = "outbox"

    id: Mapped[Id]
    kind: Mapped[str] = mapped_column(String(40))
    address: Mapped[Address]
    language: Mapped[str] = mapped_column(String(10), default="en")
    context: Mapped[Document]
    created_at: Mapped[Instant]
    sent_at: Mapped[Instant | None] = mapped_column(index=True)


def post(session: Session, kind: str, address: str, context: dict[str, Any], language: str = "en") -> OutboxMail:
    """Ask for a system mail. ``context`` holds what its template needs, JSON values only."""
    mail = OutboxMail(kind=kind, address=address, language=language, context=context, created_at=clock.now())
    session.add(mail)
    return mail


def fields_of(mail: OutboxMail | None) -> Mapping[str, str]:
    """The fields that a program gave; none for a mail of a launch."""
    return mail.context.get("fields", {}) if mail is not None else {}


def is_transactional(mail: OutboxMail | None) -> bool:
    return mail is not None and mail.kind == TRANSACTIONAL
