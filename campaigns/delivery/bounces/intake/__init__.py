"""Intake of bounces and complaints: IMAP, maildir, SMTP listener, webhooks."""
