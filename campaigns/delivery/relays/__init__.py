"""SMTP relays: configuration, availability, connection test, reply statistics."""
