"""Messages in MJML, compiled once and merged per recipient."""
