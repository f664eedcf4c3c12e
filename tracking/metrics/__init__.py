"""Figures of campaigns: the metric registry and the queries behind every report."""
