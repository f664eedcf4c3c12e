"""Goals, custom events, conversions, touchpoints and attribution credit."""
