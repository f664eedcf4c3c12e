"""Runs every measurement of this folder, or those named: ``python -m tests.benchmarks [name …]``.

A measurement is a program of its own (``python -m tests.benchmarks.<name>``); an exit code other than 0 says that it
missed a limit. They are no part of the test run, whose machine may be busy with other things.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def names() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))


def run(wanted: list[str]) -> int:
    """How many measurements missed a limit."""
    missed = 0
    for name in wanted:
        sys.stdout.write(f"\n== {name}\n")
        sys.stdout.flush()
        missed += bool(subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=False).returncode)
    return missed


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:] or names()))
