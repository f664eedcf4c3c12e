"""Erasing a person: everything goes but the keyed hash that keeps them from coming back unasked."""

from collections.abc import Callable, Iterable

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.contacts import contact_of
from campaigns.audience.models import Contact, ContactAlias, SuppressionReason
from campaigns.audience.suppression import suppress

ErasureStep = Callable[[Session, int, str], None]

_steps: list[ErasureStep] = []


def register_steps(steps: Iterable[ErasureStep]) -> None:
    """Register what higher packages remove when a contact (id, address) is erased; a known step is ignored.

    Rows with a cascading foreign key to the contact go by themselves; steps are for copies, such as the address
    on a send.
    """
    _steps.extend(step for step in steps if step not in _steps)


def erase_contact(session: Session, actor: Actor, contact_id: int) -> None:
    """Remove the person. An import or a coordinator cannot add the address again."""
    actor.require(Permission.AUDIENCE)
    contact = contact_of(session, contact_id)
    aliases = select(ContactAlias.address).where(ContactAlias.contact_id == contact_id)
    for address in (contact.email, *session.scalars(aliases)):
        suppress(session, actor, address, SuppressionReason.ERASED)
        for step in _steps:
            step(session, contact_id, address)
    session.flush()
    session.expunge(contact)
    session.execute(delete(Contact).where(Contact.id == contact_id).execution_options(synchronize_session=False))
    audit.record(session, actor, "erase", "contact", contact_id)
