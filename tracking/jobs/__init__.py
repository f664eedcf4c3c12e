"""Background jobs of tracking: lead conversions, visit linking, relabelling, maintenance runs, checks and merges."""
