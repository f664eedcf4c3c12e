"""Actors and their permissions: every service function takes an actor and checks a permission of it."""

from dataclasses import dataclass
from enum import StrEnum

from campaigns.accounts.models import ApiKey, Role, Scope, User
from campaigns.errors import Forbidden
from campaigns.i18n import N_


class ActorKind(StrEnum):
    USER = "user"
    SYSTEM = "system"
    PUBLIC = "public"
    API_KEY = "api key"


class Permission(StrEnum):
    VIEW = "view"  # campaigns and their reports
    PLAN = "plan"  # create and change campaigns, activities, messages, forms
    LAUNCH = "launch"  # launch, pause, resume, finish, cancel; send test mails
    PERSONAL = "personal"  # see contacts and leads, and the events of single people
    AUDIENCE = "audience"  # change contacts, lists, consent, suppression; import
    LEADS = "leads"  # work on leads
    EXPORT = "export"  # export personal data
    PEOPLE = "people"  # invite, change and lock users
    SETTINGS = "settings"  # the organisation's settings; read the audit log


PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.OWNER: frozenset(Permission),
    Role.COORDINATOR: frozenset(Permission) - {Permission.PEOPLE, Permission.SETTINGS},
    Role.VIEWER: frozenset({Permission.VIEW}),
}


SCOPES: dict[Scope, frozenset[Permission]] = {
    Scope.EVENTS: frozenset({Permission.AUDIENCE, Permission.LEADS}),
    Scope.MAIL: frozenset({Permission.AUDIENCE, Permission.LAUNCH}),
    Scope.FIGURES: frozenset({Permission.VIEW}),
}


@dataclass(frozen=True, slots=True)
class Actor:
    """Originator of an action: a user, an API client, the system, or the public (form submitters, unsubscribers)."""

    kind: ActorKind
    id: int | None
    name: str
    permissions: frozenset[Permission]

    @classmethod
    def of_user(cls, user: User) -> "Actor":
        """The actor of a signed-in user, with the permissions of the user's role."""
        return cls(ActorKind.USER, user.id, user.name, PERMISSIONS[user.role])

    @classmethod
    def of_api_key(cls, key: ApiKey) -> "Actor":
        """The actor of an API key, with the permissions of all its scopes."""
        permissions = frozenset[Permission]().union(*(SCOPES[Scope(scope)] for scope in key.scopes))
        return cls(ActorKind.API_KEY, key.id, key.name, permissions)

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions

    def require(self, permission: Permission) -> None:
        """Raise Forbidden unless the actor has the permission."""
        if permission not in self.permissions:
            raise Forbidden(N_("Your role does not allow this."))


SYSTEM = Actor(ActorKind.SYSTEM, None, "system", frozenset(Permission))
PUBLIC = Actor(ActorKind.PUBLIC, None, "public", frozenset())
