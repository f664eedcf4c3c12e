"""What a person may do to their own row without an account: subscribe, unsubscribe, come back."""

from campaigns.accounts.actor import Actor, ActorKind, Permission


def is_own_act(actor: Actor) -> bool:
    """The public acts for itself only: faces let it through when a form or a token says who it is."""
    return actor.kind is ActorKind.PUBLIC


def require_audience(actor: Actor) -> None:
    """Raise Forbidden unless it is a person's own act or the actor may change the audience."""
    if not is_own_act(actor):
        actor.require(Permission.AUDIENCE)
