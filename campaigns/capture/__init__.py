"""Forms and landing pages: what strangers send us."""
