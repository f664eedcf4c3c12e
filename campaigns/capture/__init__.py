"""Capture: hosted forms on landing pages, and their submissions."""
