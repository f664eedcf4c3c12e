"""Contact imports from CSV files: reading, column mapping, row cleaning, upsert, rejected rows."""
