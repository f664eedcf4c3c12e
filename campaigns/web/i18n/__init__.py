"""Locale selection, formatting of numbers and dates, translation catalogs."""
