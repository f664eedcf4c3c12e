"""Mails outside launches: API requests, system mails from the outbox, test sends."""
