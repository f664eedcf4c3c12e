"""What no text may hold: PostgreSQL keeps no NUL, and nobody types one."""

from flask import Flask, request
from werkzeug.exceptions import BadRequest

from campaigns.web.exemptions import EXEMPT


def _refuse_nul() -> None:
    """Runs behind the check of CSRF, which has read the form already; the exempt doors look for themselves."""
    texts = [*(request.view_args or {}).values(), *request.args.keys(), *request.args.values()]
    if request.method not in ("GET", "HEAD", "OPTIONS") and request.endpoint not in EXEMPT:
        texts += [value for values in request.form.listvalues() for value in values]
    if any("\x00" in text for text in texts if isinstance(text, str)):
        raise BadRequest


def init(app: Flask) -> None:
    app.before_request(_refuse_nul)
