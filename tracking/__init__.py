"""Measurement of what recipients and visitors do, and the reports built on it.

``endpoints`` answer pixels and links and write each hit to the ``spool``. The ``collector`` labels hits and writes
events and counters. ``conversions`` match goals and credit activities. ``metrics`` and ``reports`` read the counters.
"""
