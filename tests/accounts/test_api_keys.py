"""API keys: shown once, limited to scopes, revoked at once."""

import re
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import clock, db
from campaigns.accounts import api_keys
from campaigns.accounts.actor import SYSTEM, Permission
from campaigns.accounts.models import ApiKey, AuditLogEntry
from campaigns.errors import Forbidden, ValidationFailed
from campaigns.web.security import api_auth
from campaigns.web.security.rate_limits import RateLimit
from tests.conftest import FrozenClock


def make_key(session: Session, *scopes: str, days: int | None = None) -> tuple[ApiKey, str]:
    expires_at = clock.now() + timedelta(days=days) if days else None
    return api_keys.create_key(session, SYSTEM, name="Shop", scopes=list(scopes), expires_at=expires_at)


def test_a_key_has_the_permissions_of_its_scopes_only(session: Session) -> None:
    key, text = make_key(session, "figures")
    actor = api_keys.authenticate(session, text)
    assert (actor.name, actor.id, actor.permissions) == ("Shop", key.id, frozenset({Permission.VIEW}))
    assert text.split("_", 2)[2] not in str(vars(key))


@pytest.mark.parametrize(
    "spoil", [lambda t: t[:-1], lambda t: t + "x", str.upper, lambda t: "", lambda t: "kmp_é_" + t]
)
def test_altered_keys_are_refused(session: Session, spoil: object) -> None:
    _, text = make_key(session, "events")
    with pytest.raises(Forbidden):
        api_keys.authenticate(session, spoil(text))  # type: ignore[operator]


def test_revoked_and_expired_keys_are_refused(session: Session, frozen: FrozenClock) -> None:
    key, text = make_key(session, "events")
    api_keys.revoke_key(session, SYSTEM, key.id)
    with pytest.raises(Forbidden):
        api_keys.authenticate(session, text)
    _, text = make_key(session, "events", days=1)
    api_keys.authenticate(session, text)
    frozen.at += timedelta(days=1)
    with pytest.raises(Forbidden):
        api_keys.authenticate(session, text)


@pytest.mark.parametrize("scopes", [[], ["king"], ["events", "king"]])
def test_unknown_scopes_are_refused(session: Session, scopes: list[str]) -> None:
    with pytest.raises(ValidationFailed):
        make_key(session, *scopes)


def test_page_and_endpoint(owner_client: FlaskClient, client: FlaskClient) -> None:
    answer = owner_client.post("/api-keys", data={"name": "Shop", "scopes": ["events", "figures"], "days": "365"})
    text = re.search(r"kmp_\w+_[\w-]{43}", answer.get_data(as_text=True))
    assert text is not None
    assert text[0] not in owner_client.get("/api-keys").get_data(as_text=True)
    bearer = {"Authorization": f"Bearer {text[0]}"}
    assert client.get("/api/v1/key", headers=bearer).get_json() == {"name": "Shop", "scopes": ["events", "figures"]}
    with db.read_only_session() as session:
        key = session.scalars(select(ApiKey)).one()
        verbs = session.scalars(select(AuditLogEntry.action).where(AuditLogEntry.subject_kind == "api key")).all()
    assert key.last_used_at is not None
    assert verbs == ["create"]
    assert owner_client.post(f"/api-keys/{key.id}/revoke").status_code == 303
    refused = client.get("/api/v1/key", headers=bearer)
    assert (refused.status_code, refused.get_json()["error"]["status"]) == (401, 401)


def test_a_session_does_not_authenticate_for_the_api(owner_client: FlaskClient) -> None:
    assert owner_client.get("/api/v1/key").status_code == 401


def test_an_invalid_form_is_refused(owner_client: FlaskClient) -> None:
    answer = owner_client.post("/api-keys", data={"name": "", "days": "365"})
    assert answer.status_code == 400


def test_invalid_keys_are_rate_limited(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, frozen: FrozenClock
) -> None:
    monkeypatch.setattr(api_auth, "_INVALID_KEY_LIMIT", RateLimit(count=20, seconds=60))
    answers = [
        client.get(
            "/api/v1/key", headers={"Authorization": f"Bearer kmp_{n}_x"}, environ_base={"REMOTE_ADDR": "10.9.9.9"}
        )
        for n in range(25)
    ]
    assert {answers[0].status_code, answers[-1].status_code} == {401, 429}
    assert "Retry-After" in answers[-1].headers
