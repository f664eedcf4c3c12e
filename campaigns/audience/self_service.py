"""Permission checks of self-service: subscribing and unsubscribing without an account."""

from campaigns.accounts.actor import Actor, ActorKind, Permission


def is_self_service(actor: Actor) -> bool:
    """Return whether the actor is PUBLIC: a person acting for themselves.

    Views use this actor only where a form or a token identifies the person.
    """
    return actor.kind is ActorKind.PUBLIC


def require_audience_or_self_service(actor: Actor) -> None:
    """Raise Forbidden unless the actor is PUBLIC or may change the audience."""
    if not is_self_service(actor):
        actor.require(Permission.AUDIENCE)
