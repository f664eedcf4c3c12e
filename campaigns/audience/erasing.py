"""Erasing a person: everything goes but the keyed hash that keeps them from coming back unasked."""

from collections.abc import Callable

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.contacts import contact_of
from campaigns.audience.models import Contact, ContactAlias, SuppressionReason
from campaigns.audience.suppression import suppress

Remover = Callable[[Session, int, str], None]

_removers: list[Remover] = []


def also_remove(remover: Remover) -> Remover:
    """Register what a higher room removes when a contact (id, address) is erased.

    Rows that hang on the contact by a cascading foreign key go by themselves; this is for
    copies, such as the address on a send.
    """
    _removers.append(remover)
    return remover


def erase_contact(session: Session, actor: Actor, contact_id: int) -> None:
    """Remove the person. An import or a coordinator cannot add the address again."""
    actor.require(Permission.AUDIENCE)
    contact = contact_of(session, contact_id)
    aliases = select(ContactAlias.address).where(ContactAlias.contact_id == contact_id)
    for address in (contact.email, *session.scalars(aliases)):
        suppress(session, actor, address, SuppressionReason.ERASED)
        for remover in _removers:
            remover(session, contact_id, address)
    session.flush()
    session.expunge(contact)
    session.execute(delete(Contact).where(Contact.id == contact_id).execution_options(synchronize_session=False))
    audit.record(session, actor, "erase", "contact", contact_id)
