"""Runner of the benchmarks: ``python -m tests.benchmarks [name …]`` runs all or the named ones.

Each benchmark is a program (``python -m tests.benchmarks.<name>``) whose exit code is not 0 when a limit is missed.
Benchmarks are not part of the test suite, since other load on the machine would distort them.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def benchmark_names() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))


def run(names: list[str]) -> int:
    """Run the benchmarks and return how many missed a limit."""
    missed = 0
    for name in names:
        sys.stdout.write(f"\n== {name}\n")
        sys.stdout.flush()
        missed += bool(subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=False).returncode)
    return missed


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:] or benchmark_names()))
