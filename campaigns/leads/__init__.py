"""A contact's recorded interest: stage, source and owner."""
