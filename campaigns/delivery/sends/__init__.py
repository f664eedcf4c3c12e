"""Rows and rules of sends: counters, progress, resolution, windows, caps, unsubscribing."""
