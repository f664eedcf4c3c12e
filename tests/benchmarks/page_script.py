"""CPU time of page script reports, compared with nginx: ``python -m tests.benchmarks.page_script [seconds]``.

Set up like :mod:`tests.benchmarks.hits`: the same cores, in turns. Afterwards the collector counts the spooled reports,
and its rate is shown. Skipped without nginx, wrk, taskset and two cores.
"""

import shutil
import sys
import time

from campaigns import db
from campaigns.accounts.models import Organisation
from tests.benchmarks.hits import (
    NGINX,
    ROUNDS,
    VAR,
    Run,
    free_port,
    median_runs,
    print_run,
    run_wrk,
    running_server,
    wrk_scripts,
)
from tracking.collector import collector as collector_collector
from tracking.endpoints import link_targets

MAX_CPU_RATIO = 3.5  # times nginx's, per report
MIN_COUNTED_RATE = 1_000  # reports per second, by one collector
HOST = "shop.example"
_WRK_SCRIPT = """local next = 0
local headers = { ["Origin"] = "https://%s", ["Content-Type"] = "text/plain;charset=UTF-8" }
local agent = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/%%d.0"
local body = '{"t":"%%s","u":"https://%s/tea/%%d?utm_source=facebook&utm_medium=social",' ..
  '"r":"https://www.facebook.com/","p":%%d,"a":%%d,"s":40,"l":"en-GB","z":"Asia/Tbilisi"}'
function request()
  next = next + 1
  headers["User-Agent"] = agent:format(next %% 2000)
  local kind = next %% 3 == 0 and "v" or "h"
  return wrk.format("POST", "/e", headers, body:format(kind, next %% 50, 1 + next %% 5000, next %% 60))
end
"""


def main(seconds: float) -> int:
    missing = [name for name in ("nginx", "wrk", "taskset") if shutil.which(name) is None]
    if missing:
        sys.stdout.write(f"SKIPPED: needs two cores, nginx, wrk and taskset; missing: {', '.join(missing)}\n")
        return 0
    pixel, port, own_port = wrk_scripts()["pixel"], free_port(), free_port()
    with db.transaction() as session:
        session.get_one(Organisation, 1).own_hosts = [HOST]
    link_targets.sync()
    report = VAR / "report.lua"
    report.write_text((_WRK_SCRIPT % (HOST, HOST)).replace("%%", "%"))
    (VAR / "nginx.conf").write_text(NGINX % {"var": VAR, "port": port})
    db.engine().dispose()
    nginx = ["nginx", "-c", str(VAR / "nginx.conf"), "-p", str(VAR)]
    web_process = [sys.executable, "-m", "campaigns.cli", "web", "--port", str(own_port)]
    theirs_runs: list[Run] = []
    our_runs: list[Run] = []
    with running_server(nginx, port) as theirs, running_server(web_process, own_port) as ours:
        for _ in range(ROUNDS):
            theirs_runs.append(run_wrk(theirs, port, pixel, seconds))
            our_runs.append(run_wrk(ours, own_port, report, seconds))
    limit, run = median_runs({"theirs": theirs_runs, "ours": our_runs}).values()
    print_run("nginx empty_gif", limit)
    print_run("report", run, f"{run.ratio:.2f} × nginx (limit {MAX_CPU_RATIO})")
    counted_rate = _measure_counting()
    shutil.rmtree(VAR, ignore_errors=True)
    return int(run.ratio > MAX_CPU_RATIO or run.errors > 0 or counted_rate < MIN_COUNTED_RATE)


def _measure_counting() -> float:
    """Return the number of reports that one collector counts per second of CPU."""
    collector, counted, began = collector_collector.Collector(), 0, time.process_time()
    while time.process_time() - began < 10 and (collected := collector.collect_once()):
        counted += collected
    rate = counted / (time.process_time() - began)
    sys.stdout.write(f"{'counted':<26}{1e6 / rate:>7.1f} µs CPU {rate:>9,.0f}/s  (at least {MIN_COUNTED_RATE:,})\n")
    return rate


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 3))
