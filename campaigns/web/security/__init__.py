"""Sign-in session, CSRF exemptions, security headers, rate limits, API authentication."""
