"""A message as it would arrive, sent to oneself."""

import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.addresses import normalise
from campaigns.audience.models import Contact
from campaigns.audience.suppression import is_suppressed
from campaigns.content.compilation import freeze
from campaigns.content.models import Message
from campaigns.delivery import single
from campaigns.delivery.models import Send
from campaigns.errors import Invalid, Problem
from campaigns.language import N_


def send_test(session: Session, actor: Actor, message: Message, address: str, key: str = "") -> Send:
    """Queue one mail of ``message`` as it stands now to ``address``; the same ``key`` only once.

    It is merged with the contact of that address when there is one. Raises Invalid for an address
    that can't be mailed, and for content that doesn't compile.
    """
    actor.require(Permission.LAUNCH)
    address = normalise(address)
    if is_suppressed(session, address):
        raise Invalid(Problem(N_("This address is suppressed, so no test mail can be sent to it."), "address"))
    version = freeze(session, actor, message)
    contact_id = session.scalar(select(Contact.id).where(Contact.email == address))
    occasion = f"{message.id}:{key or secrets.token_urlsafe(12)}"[:80]
    send = single.add(session, "test", address, occasion, contact_id=contact_id, version_id=version.id)
    audit.record(session, actor, "send test", "message", message.id, send=str(send.id))
    return send
