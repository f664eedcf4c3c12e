"""Static files: vendored ones unchanged, nothing from other hosts, correct headers."""

import hashlib
import json
import re

import pytest
from flask.testing import FlaskClient

from campaigns.web.assets import static_files
from campaigns.web.assets.vendor import ICON_NAMES, PACKAGES, VENDOR

MANIFEST = json.loads((VENDOR / "manifest.json").read_text())
OURS = [path for path in static_files.ROOT.rglob("*") if path.suffix in (".css", ".js", ".svg")]
_URL = re.compile(r"https?://[^\s\"'`)<>\\]+")
_NAMESPACES = ("http://www.w3.org/",)  # names of XML vocabularies, never fetched


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: str(entry["file"]))
def test_vendored_files_match_the_manifest(entry: dict[str, str]) -> None:
    assert hashlib.sha256((VENDOR / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
    assert all(entry[key] for key in ("package", "version", "source", "licence"))


def test_the_manifest_is_complete() -> None:
    assert {path.name for path in VENDOR.iterdir()} == {entry["file"] for entry in MANIFEST} | {"manifest.json"}
    versions = {entry["package"]: entry["version"] for entry in MANIFEST}
    assert all(versions[package.name] == package.version for package in PACKAGES)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_no_file_refers_to_another_host(path: object) -> None:
    text = path.read_text()  # type: ignore[attr-defined]
    assert "sourceMappingURL" not in text
    if path.suffix == ".css":  # type: ignore[attr-defined]
        assert not re.search(r"@import|url\(\s*[\"']?(?:https?:)?//", text)
    if VENDOR not in path.parents:  # type: ignore[attr-defined]
        assert not [url for url in _URL.findall(text) if not url.startswith(_NAMESPACES)]


def test_our_css_uses_logical_properties() -> None:
    text = (static_files.ROOT / "app.css").read_text()
    assert not re.search(
        r"(?:margin|padding|border|inset)-(?:left|right|top|bottom)|text-align:\s*(?:left|right)", text
    )
    assert not re.search(
        r"(?<![\w-])(?:left|right|width|height|top|bottom)\s*:",
        text.replace("(max-width:", "").replace("(min-width:", ""),
    )


def test_every_used_icon_is_in_the_sprite() -> None:
    sprite = set(re.findall(r'<symbol id="([^"]+)"', (VENDOR / "icons.svg").read_text()))
    assert sprite == set(ICON_NAMES)
    used: set[str] = set()
    for path in (static_files.ROOT.parents[2] / "templates").rglob("*.html"):
        used |= set(re.findall(r"\bicon\(\"([a-z0-9-]+)\"", path.read_text()))
        used |= set(re.findall(r"\bicon=\"([a-z0-9-]+)\"", path.read_text()))
    assert used <= sprite


def test_versioned_urls_are_cached_for_ever(client: FlaskClient) -> None:
    named = client.get(static_files.asset("app.css"))
    assert named.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert named.content_type == "text/css; charset=utf-8"
    assert "immutable" not in client.get("/static/app.css?v=other").headers["Cache-Control"]
    again = client.get("/static/app.css", headers={"If-None-Match": named.headers["ETag"]})
    assert again.status_code == 304
    zipped = client.get("/static/app.css", headers={"Accept-Encoding": "gzip"})
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert zipped.headers["ETag"] != named.headers["ETag"]
    assert "Set-Cookie" not in named.headers


@pytest.mark.parametrize(
    "path",
    [
        "nowhere.css",
        "../guards.py",
        "..%2Fguards.py",
        "/etc/passwd",
        "vendor",
        "%00.css",
        "a" * 5000,
        "vendor/",
    ],
)
def test_other_paths_are_not_served(client: FlaskClient, path: str) -> None:
    assert client.get(f"/static/{path}").status_code in (404, 308)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("vendor/vazirmatn-33.0.3.woff2", "font/woff2"),
        ("app.js", "text/javascript; charset=utf-8"),
        ("vendor/icons.svg", "image/svg+xml"),
        ("vendor/manifest.json", "application/json"),
    ],
)
def test_content_types(client: FlaskClient, path: str, kind: str) -> None:
    assert client.get(f"/static/{path}").content_type == kind


def test_the_default_favicon_url(client: FlaskClient) -> None:
    answer = client.get("/favicon.ico")
    assert answer.status_code == 200
    assert answer.content_type == "image/x-icon"
