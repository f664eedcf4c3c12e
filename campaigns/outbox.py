"""Outbox of system mail: rows that lower packages write and delivery's tick turns into sends.

A service function writes the row in its own transaction, so the mail is requested exactly when the change that it
reports is committed.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, Session, mapped_column

from campaigns import clock
from campaigns.db import Address, Base, Document, Id, Instant

TRANSACTIONAL = "transactional"
"""Kind of a mail that an API client requested and that needs no consent."""


class OutboxMail(Base):
    """One system mail to one address; ``kind`` names its template in ``templates/emails/system``."""

    __tablename__ = "outbox"

    id: Mapped[Id]
    kind: Mapped[str] = mapped_column(String(40))
    address: Mapped[Address]
    language: Mapped[str] = mapped_column(String(10), default="en")
    context: Mapped[Document]
    created_at: Mapped[Instant]
    sent_at: Mapped[Instant | None] = mapped_column(index=True)


def enqueue(session: Session, kind: str, address: str, context: dict[str, Any], language: str = "en") -> OutboxMail:
    """Request a system mail. ``context`` holds the variables of its template, JSON values only."""
    mail = OutboxMail(kind=kind, address=address, language=language, context=context, created_at=clock.now())
    session.add(mail)
    return mail


def fields_of(mail: OutboxMail | None) -> Mapping[str, str]:
    """The merge fields that an API client gave; empty for a mail of a launch."""
    return mail.context.get("fields", {}) if mail is not None else {}


def is_transactional(mail: OutboxMail | None) -> bool:
    return mail is not None and mail.kind == TRANSACTIONAL
