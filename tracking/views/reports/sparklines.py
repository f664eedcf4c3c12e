"""Small lines beside a campaign's name."""

from collections.abc import Sequence


def spark_points(values: Sequence[int], width: int = 120, height: int = 32) -> str:
    """A line's points for SVG, highest value on top; a flat line at the bottom for nothing."""
    top = max(values, default=0) or 1
    pace = width / max(len(values) - 1, 1)
    return " ".join(f"{n * pace:.1f},{height - 2 - value / top * (height - 4):.1f}" for n, value in enumerate(values))
