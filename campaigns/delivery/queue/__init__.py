"""The send queue in the database: expansion, claims, leases, the batch journal, results."""
