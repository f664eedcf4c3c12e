"""Rendering of a frozen message version for one recipient."""
