"""The actor of the current request. A view requires a signed-in user unless it is marked ``@public``."""

from collections.abc import Callable
from typing import TypeVar

from flask_login import current_user

from campaigns.accounts.actor import PUBLIC, Actor

View = TypeVar("View", bound=Callable[..., object])


def public(view: View) -> View:
    """Mark a view as accessible without signing in."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


def current_actor() -> Actor:
    """The signed-in user as an actor, else the public."""
    if current_user.is_authenticated:
        return Actor.of_user(current_user.person)
    return PUBLIC
