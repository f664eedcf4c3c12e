"""Measurement of what recipients and visitors do, and the reports built on it.

``endpoints`` answer pixels and links and write each hit to the ``spool``. The ``collector`` writes events, visits and
``counters``. ``bots`` labels events and ``channels`` classifies visits. ``conversions`` matches goals and credits
activities; ``jobs`` does so for what other packages leave. ``metrics`` and ``reports`` read the counters, ``views`` and
``api`` show them. ``registration`` lists the tables, erasure steps and merge steps of every package.
"""
