"""Report pages: overview, campaigns, performance, drill-down, visits."""
