"""Reports built on metrics: drilldown, exports, shared reports, click maps, event log and contact timelines."""
