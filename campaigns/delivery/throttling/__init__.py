"""Rate limits of relays, providers and recipient domains, shared by all workers through Redis."""
