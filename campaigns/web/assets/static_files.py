"""Static files, served from memory, compressed once and cached for ever; vendored stylesheets are purged.

A page refers to a file with the hash of its content (``asset("app.css")``), so a new version has a new URL and an
old one never needs revalidation.
"""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from flask import Flask, Response, abort, g, has_app_context, request

from campaigns.web.assets.css_purge import pruned
from campaigns.web.security.current_actor import public

ROOT = Path(__file__).parents[1] / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
_COMPRESSIBLE = frozenset({".css", ".js", ".svg", ".json", ".txt"})


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    zipped: bytes | None
    kind: str
    version: str
    changed: int


_known: dict[str, Asset] = {}


def _read(name: str) -> Asset | None:
    """The file as it is on disk, cached until its modification time changes; None when there is no such file."""
    path = ROOT / name
    if ".." in Path(name).parts or (path.suffix not in _TYPES and mimetypes.guess_type(name)[0] is None):
        return None
    try:
        changed = path.stat().st_mtime_ns
        known = _known.get(name)
        if known is not None and known.changed == changed:
            return known
        body = path.read_bytes()
    except (OSError, ValueError):  # ValueError: a NUL byte in the name.
        return None
    if path.suffix == ".css" and path.parent.name == "vendor":
        body = pruned(body.decode()).encode()
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    zipped = gzip.compress(body, 6, mtime=0) if path.suffix in _COMPRESSIBLE else None
    asset = Asset(body, zipped, kind, hashlib.sha256(body).hexdigest()[:12], changed)
    _known[name] = asset
    return asset


def asset(name: str) -> str:
    """The URL of one of our static files. Raises LookupError when there is no such file.

    Results are cached per request: a page refers to its icons a hundred times.
    """
    known: dict[str, str] = g.setdefault("assets", {}) if has_app_context() else {}
    if name not in known:
        found = _read(name)
        if found is None:
            raise LookupError(f"no static file {name}")
        known[name] = f"/static/{name}?v={found.version}"
    return known[name]


@public
def static(filename: str) -> Response:
    found = _read(filename)
    if found is None:
        abort(404)
    zipped = found.zipped is not None and "gzip" in request.headers.get("Accept-Encoding", "")
    response = Response(found.zipped if zipped else found.body, content_type=found.kind)
    if zipped:
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    response.set_etag(found.version + ("-gz" if zipped else ""))
    if request.args.get("v") == found.version:
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    else:
        response.headers["Cache-Control"] = "public, max-age=3600"
    response.make_conditional(request)
    return response


def init(app: Flask) -> None:
    app.add_url_rule("/static/<path:filename>", "static", static)
    # Pages link their icon; this URL is for responses without a page: JSON, downloads, pictures.
    app.add_url_rule("/favicon.ico", "favicon", static, defaults={"filename": "favicon.ico"})
    app.jinja_env.globals["asset"] = asset
