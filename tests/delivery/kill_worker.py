"""Workers to be killed: for each line ``ACTIVITY SECONDS`` a forked process delivers it and is killed after that time.

Answers with ``gone`` when it has ended. Forking spares each the imports, and whoever forked it may kill it: one that
was quicker than its killer is still there to be killed.
"""

import os
import signal
import sys
import time

from campaigns.delivery.worker.worker import deliver
from workers.celery import load

if __name__ == "__main__":
    load(["bulk"])
    for line in sys.stdin:
        activity_id, seconds = line.split()
        child = os.fork()
        if not child:
            deliver(int(activity_id), 60.0)
            os._exit(0)
        time.sleep(float(seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        sys.stdout.write("gone\n")
        sys.stdout.flush()
