"""Security headers: the Content-Security-Policy and related headers."""

from flask import Flask, Response, g

from campaigns import config

_DEFAULT_CSP = {
    "default-src": "'self'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "frame-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}


def override_csp(**directives: str) -> None:
    """Override directives for this response: ``policy(frame_ancestors="*")``. Underscores stand for hyphens."""
    g.policy = g.get("policy", {}) | {name.replace("_", "-"): value for name, value in directives.items()}


def _add_headers(response: Response) -> Response:
    directives = _DEFAULT_CSP | g.get("policy", {})
    headers = response.headers
    # setdefault: a view with a policy of its own (the preview of a mail) has set the header already.
    headers.setdefault("Content-Security-Policy", "; ".join(f"{name} {value}" for name, value in directives.items()))
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", g.get("referrer_policy", "strict-origin-when-cross-origin"))
    headers.setdefault("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()")
    headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
    if directives["frame-ancestors"] == "'none'" and "frame-ancestors" in headers["Content-Security-Policy"]:
        headers.setdefault("X-Frame-Options", "DENY")
    if config.settings().secure:
        headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    if response.mimetype == "text/html":
        headers.setdefault("Cache-Control", "no-store" if "Set-Cookie" in headers else "private, no-cache")
    return response


def init(app: Flask) -> None:
    app.after_request(_add_headers)
