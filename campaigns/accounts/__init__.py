"""The organisation, users, roles, authentication, API keys and the audit log."""
