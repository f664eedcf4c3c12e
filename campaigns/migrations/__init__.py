"""The schema's history, and whether a database stands at its end."""
