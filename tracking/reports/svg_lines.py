"""Points of SVG polylines: line charts that need no script, for shared reports and print."""

from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 720, 200


def polyline_points(columns: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Return the ``points`` attribute of each line in a box of :data:`WIDTH` by :data:`HEIGHT` units.

    All lines share one vertical scale. Lines with only zeros are left out.
    """
    top = max((max(values, default=0) for values in columns.values()), default=0) or 1
    return {name: _points(values, top) for name, values in columns.items() if any(values)}


def _points(values: Sequence[int], top: int) -> str:
    x_step = WIDTH / max(len(values) - 1, 1)
    return " ".join(f"{n * x_step:.1f},{(HEIGHT - 4) * (1 - value / top) + 2:.1f}" for n, value in enumerate(values))
