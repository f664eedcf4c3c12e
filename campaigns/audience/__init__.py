"""Contacts, their consent, lists, suppression and imports."""
