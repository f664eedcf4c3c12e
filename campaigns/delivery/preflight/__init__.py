"""Checks before a launch: content, links and the audience with its exclusions."""
