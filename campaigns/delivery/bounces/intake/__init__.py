"""Ways by which bounces and complaints arrive: IMAP, maildir, SMTP listener, webhooks."""
