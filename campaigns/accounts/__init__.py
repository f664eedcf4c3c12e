"""Users, roles, authentication, API keys and the audit log."""
