"""The collector: spool records into events, visits and counters."""
