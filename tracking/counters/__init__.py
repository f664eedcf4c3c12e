"""Counters of events and visits: 15 minutes, days, totals, breakdowns."""
