"""Background jobs of tracking: relabelling, visit linking, maintenance runs, checks."""
