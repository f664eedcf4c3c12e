"""Append-only hit files that survive kill -9: writer, reader, record codec."""
