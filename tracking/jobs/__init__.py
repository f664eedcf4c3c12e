"""Background jobs of tracking: lead conversions, visit linking, relabelling, maintenance runs and checks."""
