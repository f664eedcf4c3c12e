"""Leads: a contact's recorded interest, with stage, source and owner."""
