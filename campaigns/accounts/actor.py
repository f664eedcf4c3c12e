"""Who does it: every verb takes an actor and asks it for a permission."""

from dataclasses import dataclass
from enum import StrEnum

from campaigns.accounts.models import ApiKey, Role, Scope, User
from campaigns.errors import Forbidden
from campaigns.i18n import N_


class ActorKind(StrEnum):
    PERSON = "person"
    SYSTEM = "clock"
    PUBLIC = "public"
    API_KEY = "api key"


class Permission(StrEnum):
    VIEW = "view"  # campaigns and their figures
    PLAN = "plan"  # create and change campaigns, activities, messages, forms
    LAUNCH = "launch"  # launch, pause, resume, finish, cancel; send test mails
    PERSONAL = "personal"  # see contacts and leads, and what single people did
    AUDIENCE = "audience"  # change contacts, lists, consent, suppression; import
    LEADS = "leads"  # work on leads
    EXPORT = "export"  # take personal rows out of the house
    PEOPLE = "people"  # invite, change and lock people
    SETTINGS = "settings"  # the organisation's settings; read the audit trail


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
    """A person, a program with its API key, the clock, or the public (whoever fills in a form or unsubscribes)."""

    kind: ActorKind
    id: int | None
    name: str
    permissions: frozenset[Permission]

    @classmethod
    def of(cls, person: User) -> "Actor":
        return cls(ActorKind.PERSON, person.id, person.name, PERMISSIONS[person.role])

    @classmethod
    def of_key(cls, key: ApiKey) -> "Actor":
        permissions = frozenset[Permission]().union(*(SCOPES[Scope(scope)] for scope in key.scopes))
        return cls(ActorKind.API_KEY, key.id, key.name, permissions)

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions

    def require(self, permission: Permission) -> None:
        """Raise Forbidden unless the actor has the permission."""
        if permission not in self.permissions:
            raise Forbidden(N_("Your role does not allow this."))


SYSTEM = Actor(ActorKind.SYSTEM, None, "clock", frozenset(Permission))
PUBLIC = Actor(ActorKind.PUBLIC, None, "public", frozenset())
