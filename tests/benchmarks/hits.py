"""CPU time of pixels and redirects compared with nginx's `empty_gif`: ``python -m tests.benchmarks.hits [seconds]``.

The second peer is granian with an application that only returns the image. All servers run on one core and the
load generator (wrk) on the other; they take turns, so that other load on the machine slows all of them. Measured is
the CPU time of the server's processes per response, and the median of its ratios to nginx's in the same round. Then,
at half the saturation rate, the 99th percentile of the response time while the collector runs. Skipped without nginx,
wrk, taskset and two cores.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

os.environ["KAMPANIA_VAR"] = tempfile.mkdtemp(prefix="kampania-bench-")

import wsgi  # noqa: F401  (registers every package's tables)
from campaigns import db
from campaigns.cli.commands import web_command
from campaigns.migrations import schema
from tests.tracking.fixtures import make_mailing
from tracking.endpoints import link_targets

VAR = Path(os.environ["KAMPANIA_VAR"])
ROUNDS, RECIPIENTS = 9, 2_000
MAX_CPU_RATIO = 3.0  # times nginx's, per response
MAX_P99_MS = 5.0  # ms, 99th percentile at half the saturation rate
_TICKS = os.sysconf("SC_CLK_TCK")
NGINX = """daemon off; master_process off; worker_processes 1; error_log stderr crit; pid %(var)s/nginx.pid;
events { worker_connections 1024; }
http { access_log off; keepalive_requests 100000000; server { listen 127.0.0.1:%(port)d; location / { empty_gif; } } }
"""
_BARE_APPLICATION = """from tracking.endpoints.pixels_and_redirects import _PIXEL_HEADERS, GIF
def application(environ, start_response):
    start_response("200 OK", _PIXEL_HEADERS)
    return [GIF]
"""
_WRK_SCRIPT = """local paths = {}
for line in io.lines("%s") do paths[#paths + 1] = line end
local next = 0
local headers = { ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0" }
function request() next = next %% #paths + 1; return wrk.format("GET", paths[next], headers) end
"""


class Run(NamedTuple):
    answers: int
    rate: float
    cpu: float
    """Microseconds of the server per response."""
    p99: float
    """Milliseconds."""
    errors: int
    ratio: float = 1.0
    """CPU as a multiple of the first peer's in the same round."""


@contextmanager
def running_server(command: list[str], port: int, core: int = 0) -> Iterator[int]:
    """Run a server on one core; yields its process id once it listens."""
    server = subprocess.Popen(["taskset", "-c", str(core), *command], start_new_session=True)
    try:
        while port and server.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v/none", timeout=10).close()
                break
            except OSError:
                time.sleep(0.05)
        yield server.pid
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def cpu_seconds(leader: int) -> float:
    """User and system time of a process group."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[2]) == leader or int(stat.parent.name) == leader:  # its process group
            ticks += int(words[11]) + int(words[12])
    return ticks / _TICKS


def run_wrk(pid: int, port: int, script: Path, seconds: float, connections: int = 32) -> Run:
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--latency"]
    command += ["-s", str(script)]
    before = cpu_seconds(pid)
    output = subprocess.run([*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(pid) - before
    answers = int(re.findall(r"(\d+) requests in", output)[0])
    number, unit = re.findall(r"99%\s+([\d.]+)(us|ms|s)", output)[0]
    errors = re.findall(r"Non-2xx or 3xx responses: (\d+)", output) + re.findall(
        r"(?:read|write|timeout) (\d+)", output
    )
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", output)[0])
    p99 = float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]
    return Run(answers, rate, used / answers * 1e6, p99, sum(map(int, errors)))


def print_run(name: str, run: Run, more: str = "") -> None:
    sys.stdout.write(f"{name:<26}{run.cpu:>7.1f} µs CPU {run.rate:>9,.0f}/s  p99 {run.p99:>7.2f} ms  {more}\n")
    sys.stdout.flush()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wrk_scripts() -> dict[str, Path]:
    """Create a mailing known to this host; return the wrk script of each kind of request."""
    schema.upgrade(db.engine())
    mailing = make_mailing(RECIPIENTS)
    link_targets.sync()
    tokens = [mailing.token(number) for number in range(RECIPIENTS)]
    paths_by_name = {
        "pixel": [f"/o/{token}" for token in tokens],
        "link": [f"/c/{token}/{1 + number % 4}" for number, token in enumerate(tokens)],
    }
    scripts = {}
    for name, paths in paths_by_name.items():
        (VAR / f"{name}.txt").write_text("\n".join(paths))
        scripts[name] = VAR / f"{name}.lua"
        scripts[name].write_text(_WRK_SCRIPT % (VAR / f"{name}.txt"))
    return scripts


def saturate(
    scripts: dict[str, Path], seconds: float, peers: dict[str, tuple[int, int]], our_server: tuple[int, int]
) -> dict[str, Run]:
    """Run all peers and kinds of request in turns; return the median run of each."""
    runs: dict[str, list[Run]] = {name: [] for name in (*peers, *scripts)}
    for _ in range(ROUNDS):
        for name, peer in peers.items():
            runs[name].append(run_wrk(*peer, scripts["pixel"], seconds))
        for name, script in scripts.items():
            runs[name].append(run_wrk(*our_server, script, seconds))
    return median_runs(runs)


def median_runs(runs: dict[str, list[Run]]) -> dict[str, Run]:
    """Return for each kind the run with the median ratio to the first kind's run of the same round."""
    first = next(iter(runs.values()))
    found = {}
    for name, some in runs.items():
        compared = [run._replace(ratio=run.cpu / theirs.cpu) for run, theirs in zip(some, first, strict=True)]
        found[name] = sorted(compared, key=lambda run: run.ratio)[len(compared) // 2]
    return found


def run_at_half_rate(servers: list[tuple[int, int]], script: Path, rate: float, seconds: float) -> list[Run]:
    """Return each server's run with the median p99 at about half of ``rate``.

    The connections pause 5 ms on average between two requests.
    """
    paced_script = script.with_suffix(".calm.lua")
    paced_script.write_text(script.read_text() + "function delay() return math.random(1, 9) end\n")
    connections = max(2, round(rate / 2 * 0.0055))
    with running_server([sys.executable, "-m", "tracking.collector.collector"], 0, core=1):
        runs = [[run_wrk(*server, paced_script, seconds, connections) for server in servers] for _ in range(ROUNDS)]
    return [sorted(some, key=lambda run: run.p99)[ROUNDS // 2] for some in zip(*runs, strict=True)]


def main(seconds: float) -> int:
    missing = [name for name in ("nginx", "wrk", "taskset") if shutil.which(name) is None]
    if missing or (os.cpu_count() or 1) < 2:
        sys.stdout.write(f"SKIPPED: needs two cores, nginx, wrk and taskset; missing: {', '.join(missing)}\n")
        return 0
    scripts, port, own_port = wrk_scripts(), free_port(), free_port()
    (VAR / "nginx.conf").write_text(NGINX % {"var": VAR, "port": port})
    db.engine().dispose()
    nginx = ["nginx", "-c", str(VAR / "nginx.conf"), "-p", str(VAR)]
    web_process = [sys.executable, "-m", "campaigns.cli", "web", "--port", str(own_port)]
    (VAR / "bare.py").write_text(_BARE_APPLICATION)
    bare_port = free_port()
    server = [word.replace("wsgi:application", "bare:application") for word in web_command("127.0.0.1", bare_port)]
    os.environ["PYTHONPATH"] = os.pathsep.join((str(VAR), str(Path.cwd())))
    missed = 0
    with (
        running_server(nginx, port) as theirs,
        running_server(server, bare_port) as bare,
        running_server(web_process, own_port) as ours,
    ):
        peers = {"nginx empty_gif": (theirs, port), "granian alone": (bare, bare_port)}
        runs = saturate(scripts, seconds, peers, (ours, own_port))
        for name, run in runs.items():
            print_run(name, run, f"{run.ratio:.2f} × nginx (limit {MAX_CPU_RATIO:.0f})")
            missed += name in scripts and (run.ratio > MAX_CPU_RATIO or run.errors > 0)
        for name in scripts:
            limit, slowest = run_at_half_rate(
                [(theirs, port), (ours, own_port)], scripts[name], runs[name].rate, seconds
            )
            words = f"limit {MAX_P99_MS:.0f} ms; nginx {limit.p99:.2f} ms as often asked; with the collector beside"
            print_run(f"{name}, half the rate", slowest, words)
            missed += slowest.p99 > MAX_P99_MS
    shutil.rmtree(VAR, ignore_errors=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 3))
