"""Reports built on metrics and events: drill-down, exports, shared reports, click maps, event log, timelines."""
