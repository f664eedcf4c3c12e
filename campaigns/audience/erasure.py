"""Erasure of a contact: deletes everything except a keyed hash of each address.

The hash keeps imports and coordinators from adding the address again.
"""

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
    """Register erasure steps of higher packages: functions of (session, contact_id, address), run once per address.

    Rows with a cascading foreign key to the contact are deleted by the database; steps remove copies, such as the
    address stored on a send. A step that is already registered is ignored.
    """
    _steps.extend(step for step in steps if step not in _steps)


def erase_contact(session: Session, actor: Actor, contact_id: int) -> None:
    """Erase a contact and its aliases. Raises NotFound, Forbidden."""
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
