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

from campaigns.web.assets.css_purge import purge
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
    gzipped: bytes | None
    content_type: str
    version: str
    mtime_ns: int


_cache: dict[str, Asset] = {}


def _load(name: str) -> Asset | None:
    """The file as it is on disk, cached until its modification time changes; None when there is no such file."""
    path = ROOT / name
    if ".." in Path(name).parts or (path.suffix not in _TYPES and mimetypes.guess_type(name)[0] is None):
        return None
    try:
        mtime_ns = path.stat().st_mtime_ns
        cached = _cache.get(name)
        if cached is not None and cached.mtime_ns == mtime_ns:
            return cached
        body = path.read_bytes()
    except (OSError, ValueError):  # ValueError: a NUL byte in the name.
        return None
    if path.suffix == ".css" and path.parent.name == "vendor":
        body = purge(body.decode()).encode()
    content_type = _TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    gzipped = gzip.compress(body, 6, mtime=0) if path.suffix in _COMPRESSIBLE else None
    asset = Asset(body, gzipped, content_type, hashlib.sha256(body).hexdigest()[:12], mtime_ns)
    _cache[name] = asset
    return asset


def asset(name: str) -> str:
    """The URL of one of our static files. Raises LookupError when there is no such file.

    Results are cached per request: a page refers to its icons a hundred times.
    """
    urls: dict[str, str] = g.setdefault("assets", {}) if has_app_context() else {}
    if name not in urls:
        file = _load(name)
        if file is None:
            raise LookupError(f"no static file {name}")
        urls[name] = f"/static/{name}?v={file.version}"
    return urls[name]


@public
def static(filename: str) -> Response:
    file = _load(filename)
    if file is None:
        abort(404)
    use_gzip = file.gzipped is not None and "gzip" in request.headers.get("Accept-Encoding", "")
    response = Response(file.gzipped if use_gzip else file.body, content_type=file.content_type)
    if use_gzip:
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    response.set_etag(file.version + ("-gz" if use_gzip else ""))
    if request.args.get("v") == file.version:
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
