"""Process that forks delivery workers and kills them.

For each input line ``ACTIVITY_ID SECONDS`` a forked child delivers the activity and gets SIGKILL after that time;
``gone`` is printed when it has ended. Forking avoids importing everything for each worker. A child that finishes early
stays a zombie until it is waited for, so its process id cannot be reused before the kill.
"""

import os
import signal
import sys
import time

from campaigns.delivery.worker.worker import deliver
from workers.celery import import_tasks

if __name__ == "__main__":
    import_tasks(["bulk"])
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
