"""Who is asking. Every page needs a signed-in person unless its endpoint says ``@public``."""

from collections.abc import Callable
from typing import TypeVar

from flask_login import current_user

from campaigns.accounts.actor import PUBLIC, Actor

View = TypeVar("View", bound=Callable[..., object])


def public(view: View) -> View:
    """Let strangers in: the front door's guard skips views marked so."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


def actor() -> Actor:
    """The signed-in person as an actor, else the public."""
    if current_user.is_authenticated:
        return Actor.of(current_user.person)
    return PUBLIC
