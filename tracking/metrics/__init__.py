"""Metrics of campaigns: the registry of definitions and the queries behind every report."""
