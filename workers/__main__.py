"""Entry point of one worker: ``python -m workers --hostname NAME --concurrency N [--queues a,b]``.

Celery's own command line would also import its shell and completions, which stay in the memory of each worker.
"""

import argparse
import sys

from workers.celery import QUEUES, app, import_tasks


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m workers")
    parser.add_argument("--hostname")
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--queues")
    options = parser.parse_args(arguments)
    import_tasks(options.queues.split(",") if options.queues else QUEUES)
    worker = app.Worker(
        hostname=options.hostname,
        concurrency=options.concurrency,
        queues=options.queues,
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
