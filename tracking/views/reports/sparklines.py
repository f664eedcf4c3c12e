"""SVG points of sparklines."""

from collections.abc import Sequence


def spark_points(values: Sequence[int], width: int = 120, height: int = 32) -> str:
    """The ``points`` attribute of an SVG polyline of ``width`` × ``height`` SVG units.

    The highest value is at the top; all zeros give a flat line at the bottom.
    """
    highest = max(values, default=0) or 1
    step = width / max(len(values) - 1, 1)
    return " ".join(
        f"{n * step:.1f},{height - 2 - value / highest * (height - 4):.1f}" for n, value in enumerate(values)
    )
