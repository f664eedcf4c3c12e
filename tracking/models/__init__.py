"""Tables of tracking: event log and rollups, visits, conversions, attribution, maintenance runs."""
