"""Goals, conversions, touchpoints and attribution credit."""
