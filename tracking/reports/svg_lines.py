"""Lines drawn without script, for pages that strangers see and print."""

from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 720, 200


def lines_of(columns: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Each line's points in a box of :data:`WIDTH` by :data:`HEIGHT`, on one scale; lines of nothing are left out."""
    top = max((max(values, default=0) for values in columns.values()), default=0) or 1
    return {name: _points(values, top) for name, values in columns.items() if any(values)}


def _points(values: Sequence[int], top: int) -> str:
    pace = WIDTH / max(len(values) - 1, 1)
    return " ".join(f"{n * pace:.1f},{(HEIGHT - 4) * (1 - value / top) + 2:.1f}" for n, value in enumerate(values))
