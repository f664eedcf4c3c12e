"""Rate limits of relays and recipient domains, shared by all workers through Redis."""
