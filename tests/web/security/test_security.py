"""Security headers, cookies, CSRF and access."""

import dataclasses
import re
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

import wsgi
from campaigns import config
from campaigns.web.security.csrf_exemptions import EXEMPT
from campaigns.web.security.current_actor import public
from campaigns.web.security.security_headers import override_csp

ROOT = Path(__file__).parents[3]

PUBLIC = {
    "static",
    "favicon",
    "accounts_public.setup",
    "accounts_public.sign_in",
    "accounts_public.sign_out",
    "accounts_public.forgot",
    "accounts_public.reset",
    "accounts_public.health",
    "accounts_api.whoami",
}


def test_every_response_has_security_headers(client: FlaskClient) -> None:
    headers = client.get("/sign-in").headers
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert "Strict-Transport-Security" not in headers
    assert "HttpOnly" in headers["Set-Cookie"]
    assert "SameSite=Lax" in headers["Set-Cookie"]


def test_a_view_may_be_framed(app: Flask, client: FlaskClient) -> None:
    @public
    def framed() -> str:
        override_csp(frame_ancestors="*")
        return "x"

    app.add_url_rule("/_framed", "framed", framed)
    headers = client.get("/_framed").headers
    assert "frame-ancestors *" in headers["Content-Security-Policy"]
    assert "X-Frame-Options" not in headers
    assert "frame-ancestors 'none'" in client.get("/sign-in").headers["Content-Security-Policy"]


def test_https_marks_cookies_secure(empty_app: Flask, settings: config.Settings) -> None:
    app = wsgi.create_app(dataclasses.replace(settings, base_url="https://kampania.example"))
    answer = app.test_client().get("/setup", base_url="https://kampania.example")
    assert "Secure" in answer.headers["Set-Cookie"]
    assert "Strict-Transport-Security" in answer.headers


def test_the_session_key_differs_from_the_settings_secret(app: Flask, settings: config.Settings) -> None:
    assert settings.secret_keys[0][1].hex() not in str(app.config["SECRET_KEY"])
    assert len(app.config["SECRET_KEY"]) == 64


def test_posts_need_a_token(app: Flask, owner_client: FlaskClient) -> None:
    app.config["WTF_CSRF_ENABLED"] = True
    assert owner_client.post("/me/language", data={"language": "fa"}).status_code == 400
    page = owner_client.get("/me").get_data(as_text=True)
    token = re.search(r'name="csrf-token" content="([^"]+)"', page)
    assert token is not None
    data = {"language": "fa", "csrf_token": token[1]}
    assert owner_client.post("/me/language", data=data).status_code == 303
    assert (
        owner_client.post("/me/language", data={"language": "en"}, headers={"X-CSRFToken": token[1]}).status_code == 303
    )


def test_no_other_endpoint_is_exempt(app: Flask) -> None:
    csrf = app.extensions["csrf"]
    assert not csrf._exempt_blueprints
    exempt = {
        endpoint
        for endpoint, view in app.view_functions.items()
        if f"{view.__module__}.{view.__name__}" in csrf._exempt_views
    }
    with_key = {endpoint for endpoint, view in app.view_functions.items() if hasattr(view, "scope")}
    assert exempt <= set(EXEMPT) | with_key
    assert set(EXEMPT) - exempt <= set(EXEMPT) - set(app.view_functions)


def test_only_listed_endpoints_are_public(app: Flask) -> None:
    public_endpoints = {
        endpoint
        for endpoint, view in app.view_functions.items()
        if getattr(view, "is_public", False) and (endpoint.startswith("accounts") or "." not in endpoint)
    }
    assert public_endpoints == PUBLIC


def test_anonymous_visitors_are_redirected_to_sign_in_everywhere(app: Flask, client: FlaskClient) -> None:
    for rule in app.url_map.iter_rules():
        if getattr(app.view_functions[rule.endpoint], "is_public", False):
            continue
        path = re.sub(r"<any\((\w+)[^>]*>", r"\1", rule.rule)
        path = re.sub(r"<[^<>]+>", "1", path)
        for method in ("GET", "POST"):
            if method in (rule.methods or ()):
                answer = client.open(path, method=method)
                assert answer.status_code == 303, (path, method)
                assert answer.headers["Location"].startswith("/sign-in"), (path, method)


def test_htmx_redirects_the_whole_page_to_sign_in(client: FlaskClient) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "http://localhost/campaigns/7?x=1"}
    answer = client.get("/me", headers=headers)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (204, "/sign-in?next=/campaigns/7")


# Displayed in a sandboxed frame with a different policy: previews of mails.
FRAMED = {"unrenderable.html", "plain_text.html"}
PAGES = [
    path for path in (ROOT / "templates").rglob("*.html") if "emails" not in path.parts and path.name not in FRAMED
]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_templates_comply_with_the_csp(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\sstyle\s*=", text), "no style attributes"
    assert not re.search(r"\son[a-z]+\s*=\s*[\"']", text), "no inline events"
    assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)", text), "no inline script"
    assert "<style" not in text
    assert not re.search(r"(?:src|href|action)=[\"']?(?:https?:)?//", text), "no other host"
