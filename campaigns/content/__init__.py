"""Messages in MJML: compiled once per version, merged once per recipient."""
