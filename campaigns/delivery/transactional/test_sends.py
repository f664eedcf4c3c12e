"""Test mails: a message as recipients would get it, sent to addresses chosen by the user."""

import re
import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.addresses import normalise
from campaigns.audience.models import Contact
from campaigns.audience.suppression import is_suppressed
from campaigns.content.models import Message
from campaigns.content.versions import freeze
from campaigns.delivery.models import Send
from campaigns.delivery.transactional import enqueue
from campaigns.errors import NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_

_SEPARATORS = re.compile(r"[\s,;]+")
MAX_ADDRESSES = 10
"""Maximum number of addresses of one test."""


def send_tests(
    session: Session, actor: Actor, message: Message, addresses: str, key: str = "", contact_id: int | None = None
) -> list[Send]:
    """Queue the current draft of ``message`` for each address; repeated calls with the same ``key`` queue it once.

    ``addresses`` are separated by blanks, commas or semicolons. Merge fields come from the contact ``contact_id``, who
    gets no mail, else from the contact of each address if there is one. Raises ValidationFailed for an address that
    cannot be mailed, too many addresses, and content that does not compile; NotFound for an unknown contact.
    """
    actor.require(Permission.LAUNCH)
    if contact_id is not None:
        actor.require(Permission.PERSONAL)
        if session.get(Contact, contact_id) is None:
            raise NotFound(N_("There is no such contact."))
    distinct_addresses = list(dict.fromkeys(normalise(each) for each in _SEPARATORS.split(addresses.strip())))
    if len(distinct_addresses) > MAX_ADDRESSES:
        raise ValidationFailed(
            ValidationProblem(N_("At most %(most)s addresses at once."), "address", params={"most": MAX_ADDRESSES})
        )
    key = key or secrets.token_urlsafe(12)
    return [_queue_test_send(session, actor, message, address, key, contact_id) for address in distinct_addresses]


def _queue_test_send(
    session: Session, actor: Actor, message: Message, address: str, key: str, contact_id: int | None
) -> Send:
    if is_suppressed(session, address):
        params = {"address": address}
        raise ValidationFailed(
            ValidationProblem(
                N_("%(address)s is suppressed, so no test mail can be sent to it."), "address", params=params
            )
        )
    version = freeze(session, actor, message)
    merge_contact_id = contact_id or session.scalar(select(Contact.id).where(Contact.email == address))
    send = enqueue.enqueue_send(
        session, "test", address, f"{message.id}:{key}"[:80], contact_id=merge_contact_id, version_id=version.id
    )
    audit.record(session, actor, "send test", "message", message.id, send=str(send.id))
    return send
