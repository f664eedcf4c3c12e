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

from tests.benchmarks.collector import write

MIN_SCORE, RUNS, TIMEOUT_SECONDS = 95, 3, 180
PAGES = ("/campaigns/1/performance", "/campaigns")
CATEGORIES = ("performance", "accessibility", "best-practices")
_DEMO = re.compile(r"(http://\S+?)/campaigns/1/performance.*?^\s+(\S+@\S+)\s+(\S+)\s+[^,\n]+, coordinator", re.S | re.M)


def main() -> int:
    """Return how many scores were below the limit."""
    program = Path(os.environ.get("LIGHTHOUSE", ".")) / "node_modules/.bin/lighthouse"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not program.exists() or chromium is None or shutil.which("node") is None:
        write("lighthouse: SKIPPED: it wants node, chromium, and LIGHTHOUSE=folder with its node_modules")
        return 0
    if len(sys.argv) == 4:
        return _measure(program, chromium, *sys.argv[1:])
    with _demo() as (base, email, password):
        return _measure(program, chromium, base, email, password)


@contextmanager
def _demo() -> Iterator[tuple[str, str, str]]:
    """Run the demo; yields (URL, e-mail, password) of a coordinator."""
    with tempfile.TemporaryDirectory(prefix="kampania-bench-") as home:
        ports = [str(_free_port()) for _ in range(2)]
        process = subprocess.Popen(
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
        assert process.stdout is not None
        try:
            output = ""
            while not (match := _DEMO.search(output)):
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError(f"the demo ended:\n{output[-2000:]}")
                output += line
            yield match[1], match[2], match[3]
        finally:
            process.terminate()
            process.wait(TIMEOUT_SECONDS)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _measure(program: Path, chromium: str, base: str, email: str, password: str) -> int:
    cookie = _sign_in(chromium, base, email, password)
    missed = 0
    with tempfile.TemporaryDirectory(prefix="kampania-bench-") as folder:
        headers = Path(folder) / "headers.json"
        headers.write_text(json.dumps({"Cookie": cookie}))
        for path in PAGES:
            for form in ("desktop", "mobile"):
                runs = [_run(program, chromium, base + path, form, headers) for _ in range(RUNS)]
                scores = {
                    kind: median(round(run["categories"][kind]["score"] * 100) for run in runs) for kind in CATEGORIES
                }
                below = [kind for kind, score in scores.items() if score < MIN_SCORE]
                missed += len(below)
                scores_text = ", ".join(f"{kind} {score:.0f}" for kind, score in scores.items())
                write(f"  {path:<28}{form:<8}{scores_text:<60}{'MISSED' if below else 'met'}")
                write(f"    {_timings(runs)}")
    return missed


def _run(
    program: Path, chromium: str, url: str, form_factor: str, headers: Path
) -> dict[str, dict[str, dict[str, float]]]:
    done = subprocess.run(
        [
            str(program),
            url,
            "--quiet",
            "--output=json",
            f"--only-categories={','.join(CATEGORIES)}",
            f"--extra-headers={headers}",
            "--chrome-flags=--headless=new --no-sandbox",
            *(["--preset=desktop"] if form_factor == "desktop" else []),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "CHROME_PATH": chromium},
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    result = json.loads(done.stdout)
    if result["finalDisplayedUrl"] != url:
        raise RuntimeError(f"{url} led to {result['finalDisplayedUrl']}")
    return result  # type: ignore[no-any-return]


def _timings(runs: list[dict[str, dict[str, dict[str, float]]]]) -> str:
    audits = ("largest-contentful-paint", "total-blocking-time", "cumulative-layout-shift", "speed-index")
    return ", ".join(
        f"{name} {median(run['audits'][name]['numericValue'] for run in runs):.{3 if 'shift' in name else 0}f}"
        + ("" if "shift" in name else " ms")
        for name in audits
    )


def _sign_in(chromium: str, base: str, email: str, password: str) -> str:
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
