"""The SMTP client (RFC 5321, RFC 2920): protocol, handshake, connection, replies."""
