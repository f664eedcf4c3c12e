"""Lighthouse scores of a campaign and the index: ``python -m tests.benchmarks.lighthouse [URL e-mail password]``.

Without a URL it starts the demo, waits for its figures, and stops it. Requires Chromium and, in the folder named by
``LIGHTHOUSE``, the result of ``npm install lighthouse@12`` (version 12 runs on Node 18 to 22); skipped when one is
missing. The median of three runs counts, for a desktop computer and for a phone; other load on the machine lowers the
scores.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.benchmarks.collector import say

LEAST, RUNS, PATIENCE = 95, 3, 180
PAGES = ("/campaigns/1/performance", "/campaigns")
KINDS = ("performance", "accessibility", "best-practices")
_DEMO = re.compile(r"(http://\S+?)/campaigns/1/performance.*?^\s+(\S+@\S+)\s+(\S+)\s+[^,\n]+, coordinator", re.S | re.M)


def main() -> int:
    """Return how many scores were below the limit."""
    program = Path(os.environ.get("LIGHTHOUSE", ".")) / "node_modules/.bin/lighthouse"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not program.exists() or chromium is None or shutil.which("node") is None:
        say("lighthouse: SKIPPED: it wants node, chromium, and LIGHTHOUSE=folder with its node_modules")
        return 0
    if len(sys.argv) == 4:
        return _measure(program, chromium, *sys.argv[1:])
    with _demo() as (base, email, password):
        return _measure(program, chromium, base, email, password)


@contextmanager
def _demo() -> Iterator[tuple[str, str, str]]:
    """Run the demo; yields (URL, e-mail, password) of a coordinator."""
    with tempfile.TemporaryDirectory(prefix="kampania-bench-") as home:
        ports = [str(_free()) for _ in range(2)]
        house = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "campaigns.cli",
                "demo",
                "--contacts",
                "400",
                "--port",
                ports[0],
                "--catcher-port",
                ports[1],
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "KAMPANIA_VAR": home},
        )
        assert house.stdout is not None
        try:
            told = ""
            while not (found := _DEMO.search(told)):
                line = house.stdout.readline()
                if not line:
                    raise RuntimeError(f"the demo ended:\n{told[-2000:]}")
                told += line
            yield found[1], found[2], found[3]
        finally:
            house.terminate()
            house.wait(PATIENCE)


def _free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _measure(program: Path, chromium: str, base: str, email: str, password: str) -> int:
    cookie = _signed_in(chromium, base, email, password)
    missed = 0
    with tempfile.TemporaryDirectory(prefix="kampania-bench-") as folder:
        headers = Path(folder) / "headers.json"
        headers.write_text(json.dumps({"Cookie": cookie}))
        for path in PAGES:
            for form in ("desktop", "mobile"):
                runs = [_run(program, chromium, base + path, form, headers) for _ in range(RUNS)]
                scores = {kind: median(round(run["categories"][kind]["score"] * 100) for run in runs) for kind in KINDS}
                below = [kind for kind, score in scores.items() if score < LEAST]
                missed += len(below)
                told = ", ".join(f"{kind} {score:.0f}" for kind, score in scores.items())
                say(f"  {path:<28}{form:<8}{told:<60}{'MISSED' if below else 'met'}")
                say(f"    {_seconds(runs)}")
    return missed


def _run(program: Path, chromium: str, url: str, form: str, headers: Path) -> dict[str, dict[str, dict[str, float]]]:
    done = subprocess.run(
        [
            str(program),
            url,
            "--quiet",
            "--output=json",
            f"--only-categories={','.join(KINDS)}",
            f"--extra-headers={headers}",
            "--chrome-flags=--headless=new --no-sandbox",
            *(["--preset=desktop"] if form == "desktop" else []),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "CHROME_PATH": chromium},
        check=False,
        timeout=PATIENCE,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found = json.loads(done.stdout)
    if found["finalDisplayedUrl"] != url:
        raise RuntimeError(f"{url} led to {found['finalDisplayedUrl']}")
    return found  # type: ignore[no-any-return]


def _seconds(runs: list[dict[str, dict[str, dict[str, float]]]]) -> str:
    audits = ("largest-contentful-paint", "total-blocking-time", "cumulative-layout-shift", "speed-index")
    return ", ".join(
        f"{name} {median(run['audits'][name]['numericValue'] for run in runs):.{3 if 'shift' in name else 0}f}"
        + ("" if "shift" in name else " ms")
        for name in audits
    )


def _signed_in(chromium: str, base: str, email: str, password: str) -> str:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{base}/sign-in")
        page.fill("input[name=email]", email)
        page.fill("input[name=password]", password)
        page.press("input[name=password]", "Enter")
        page.wait_for_url(lambda url: "sign-in" not in url)
        cookies = page.context.cookies()
        browser.close()
    return "; ".join(f"{one['name']}={one['value']}" for one in cookies if "name" in one and "value" in one)


if __name__ == "__main__":
    sys.exit(main())
