"""Every endpoint that takes a POST without a CSRF token, and what protects it instead.

CSRF is somebody else's page acting with *your* session. Endpoints here do nothing in the name of
a session; a house test checks that no other endpoint is exempt.
"""

EXEMPT: dict[str, str] = {
    "delivery_public.unsubscribe": (
        "RFC 8058 one-click: the mail program posts, without cookies. The signed token in the address, "
        "bound to one send and to this purpose, is the permission; the session is never read."
    ),
    "delivery_public.hook": (
        "A mail provider reports bounces and complaints. Its signature (or its password) over the call is the "
        "permission, checked before anything is kept; the session is never read."
    ),
    "capture_public.submit": (
        "A public form, embedded in other sites, where our cookie is not sent. It acts as the public, "
        "never as the session's person; a limit for each network and a hidden field slow down robots."
    ),
}
"""What stands behind an API key (:mod:`campaigns.web.security.api_auth`) is exempt as well, without being named here:
the session's cookie is never read there, so that nobody's browser can be made to act."""
