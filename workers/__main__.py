"""Entry point of one worker: ``python -m workers --hostname NAME --concurrency N [--queues a,b]``.

Celery's own command line would also import its shell and completions, which stay in the memory of each worker.
"""

import argparse
import sys

from workers.celery import QUEUES, app, load


def main(words: list[str]) -> int:
    told = argparse.ArgumentParser(prog="python -m workers")
    told.add_argument("--hostname")
    told.add_argument("--concurrency", type=int, default=2)
    told.add_argument("--queues")
    given = told.parse_args(words)
    load(given.queues.split(",") if given.queues else QUEUES)
    worker = app.Worker(
        hostname=given.hostname,
        concurrency=given.concurrency,
        queues=given.queues,
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
