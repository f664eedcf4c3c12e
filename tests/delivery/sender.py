"""A worker of its own process, to be killed: ``python -m tests.delivery.sender ACTIVITY``."""

import sys

import wsgi  # noqa: F401  (every table)
from campaigns.delivery.deliver import deliver

if __name__ == "__main__":
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    deliver(int(sys.argv[1]), 60.0)
