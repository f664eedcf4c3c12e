"""Contact imports from CSV files: reading, mapping, cleaning, upsert, rejected rows."""
