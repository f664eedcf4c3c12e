"""E-mail delivery: from a launched activity to sends with recorded results."""
