"""Sending domains: DNS checks, SPF and DMARC records, DKIM keys."""
