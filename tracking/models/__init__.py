"""Database tables of tracking."""
