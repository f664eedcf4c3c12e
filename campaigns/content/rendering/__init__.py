"""Rendering of message versions: Jinja sandbox, links, plain text, merging."""
