"""Tables of tracking."""
