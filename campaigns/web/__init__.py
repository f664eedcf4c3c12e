"""Shared manners of the pages."""
