"""Reports built on metrics: drilldown, exports, shared reports, timelines."""
