"""Workers to be killed: for each activity's id on standard input one forked process that delivers it.

Answers with its process id, and with ``gone`` when it has ended. Forking spares each the imports.
"""

import os
import sys

import workers.celery  # noqa: F401  (every table)
from campaigns.delivery.deliver import deliver


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if not child:
            deliver(int(line), 60.0)
            os._exit(0)
        say(child)
        os.waitpid(child, 0)
        say("gone")
