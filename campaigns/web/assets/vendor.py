"""Download of the vendored browser libraries at pinned versions; the result is committed.

Run by a developer, never at install time: ``python -m campaigns.web.assets.vendor``. It needs npm (for ``npm pack``)
and nothing else; its output is the same on every machine. ``manifest.json`` lists the origin, licence and sha256 of
each file; a test compares them.
"""

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

VENDOR = Path(__file__).parents[1] / "static" / "vendor"


@dataclass(frozen=True, slots=True)
class VendoredPackage:
    """One npm package: which of its files are kept (path in the package → our file name)."""

    name: str
    version: str
    licence: str
    files: Mapping[str, str]
    notice: str
    """Path of the licence text in the package; "" when the files themselves carry it as a banner."""


PACKAGES = (
    VendoredPackage(
        "@tabler/core",
        "1.6.1",
        "MIT",
        {
            "dist/css/tabler.min.css": "tabler.min.css",
            "dist/css/tabler.rtl.min.css": "tabler.rtl.min.css",
        },
        "",
    ),
    VendoredPackage("htmx.org", "4.0.1", "0BSD", {"dist/htmx.min.js": "htmx.min.js"}, "LICENSE"),
    VendoredPackage("echarts", "6.1.0", "Apache-2.0", {"dist/echarts.common.min.js": "echarts.min.js"}, "LICENSE"),
    VendoredPackage(
        "vazirmatn",
        "33.0.3",
        "OFL-1.1",
        {
            "misc/Non-Latin/fonts/webfonts/Vazirmatn-NL[wght].woff2": "vazirmatn-33.0.3.woff2",
        },
        "OFL.txt",
    ),
)

ICONS = VendoredPackage("@tabler/icons", "3.51.0", "MIT", {}, "LICENSE")
ICON_NAMES = (
    "ad",
    "alert-triangle",
    "archive",
    "arrow-left",
    "arrow-right",
    "article",
    "ban",
    "bell",
    "brush",
    "calendar",
    "calendar-event",
    "chart-bar",
    "chart-line",
    "check",
    "checks",
    "chevron-down",
    "chevron-right",
    "circle-check",
    "circle-x",
    "click",
    "clock",
    "code",
    "coin",
    "copy",
    "database",
    "device-desktop",
    "device-floppy",
    "device-mobile",
    "dots",
    "download",
    "edit",
    "external-link",
    "eye",
    "file-text",
    "filter",
    "flag",
    "forms",
    "history",
    "home",
    "id",
    "inbox",
    "info-circle",
    "key",
    "language",
    "link",
    "list",
    "lock",
    "lock-open",
    "logout",
    "mail",
    "mail-opened",
    "mailbox",
    "menu-2",
    "message",
    "moon",
    "phone",
    "photo",
    "player-pause",
    "player-play",
    "player-stop",
    "plus",
    "question-mark",
    "refresh",
    "report-analytics",
    "rocket",
    "route",
    "search",
    "send",
    "settings",
    "share",
    "shield-check",
    "sparkles",
    "speakerphone",
    "star",
    "sun",
    "tag",
    "target",
    "template",
    "test-pipe",
    "ticket",
    "trash",
    "trending-up",
    "upload",
    "user",
    "user-plus",
    "users",
    "users-group",
    "video",
    "world",
    "x",
)


def strip_source_map(body: bytes) -> bytes:
    """The file without its source map reference: maps are not shipped, so browsers must not request them."""
    return re.sub(rb"\s*(?://[#@]\s*sourceMappingURL=\S+|/\*[#@]\s*sourceMappingURL=[^*]+\*/)\s*", b"\n", body)


def fetch_package(package: VendoredPackage, into: Path) -> Callable[[str], bytes]:
    """Download the package into ``into``; returns a function from a path in the package to its bytes."""
    subprocess.run(
        ["npm", "pack", f"{package.name}@{package.version}", "--silent", "--pack-destination", str(into)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    name = f"{package.name.removeprefix('@').replace('/', '-')}-{package.version}.tgz"
    archive = tarfile.open(into / name)  # noqa: SIM115  (closed with the process)

    def read(path: str) -> bytes:
        member = archive.extractfile(f"package/{path}")
        if member is None:
            raise SystemExit(f"{package.name} {package.version} has no file {path}")
        return member.read()

    return read


def build_sprite(read: Callable[[str], bytes]) -> bytes:
    """An SVG sprite of the outline icons that we use, each a ``<symbol>``."""
    symbols = []
    for name in sorted(ICON_NAMES):
        svg = read(f"icons/outline/{name}.svg").decode()
        inner = re.sub(r"\s+", " ", svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]).strip()
        symbols.append(
            f'<symbol id="{name}" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.75" '
            f'stroke-linecap="round" stroke-linejoin="round">{inner}</symbol>'
        )
    return ('<svg xmlns="http://www.w3.org/2000/svg">\n' + "\n".join(symbols) + "\n</svg>\n").encode()


def write_file(name: str, body: bytes, package: VendoredPackage, source: str) -> dict[str, str]:
    """Write a file into ``VENDOR``; returns its entry of the manifest."""
    (VENDOR / name).write_bytes(body)
    return {
        "file": name,
        "package": package.name,
        "version": package.version,
        "source": source,
        "licence": package.licence,
        "sha256": hashlib.sha256(body).hexdigest(),
    }


def main() -> None:
    VENDOR.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for package in PACKAGES:
            read = fetch_package(package, Path(folder))
            for source, name in package.files.items():
                body = read(source)
                entries.append(
                    write_file(name, body if name.endswith(".woff2") else strip_source_map(body), package, source)
                )
            if package.notice:
                entries.append(
                    write_file(f"{_file_stem(package)}.LICENSE.txt", read(package.notice), package, package.notice)
                )
        read = fetch_package(ICONS, Path(folder))
        entries.append(write_file("icons.svg", build_sprite(read), ICONS, "icons/outline/*.svg"))
        entries.append(write_file(f"{_file_stem(ICONS)}.LICENSE.txt", read(ICONS.notice), ICONS, ICONS.notice))
    text = json.dumps(sorted(entries, key=lambda entry: entry["file"]), indent=2) + "\n"
    (VENDOR / "manifest.json").write_text(text)
    sys.stdout.write(f"{len(entries)} files in {VENDOR}\n")


def _file_stem(package: VendoredPackage) -> str:
    return package.name.removeprefix("@").replace("/", "-")


if __name__ == "__main__":
    main()
