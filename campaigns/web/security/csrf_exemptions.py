"""Endpoints that take a POST without a CSRF token, each with its protection.

A CSRF attack uses the victim's session from another site. These endpoints do nothing in the name of a session; a test
checks that no other endpoint is exempt.
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
"""Endpoints behind an API key (:mod:`campaigns.web.security.api_auth`) are exempt as well, without being listed here:
they never read the session cookie.
"""
