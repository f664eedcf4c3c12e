"""Counters of events and visits: 15-minute rollups, daily rollups, totals and breakdowns."""
