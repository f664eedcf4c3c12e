"""Schema migrations and the schema version of a database."""
