"""The collector: spool records become events, visits and counters."""
