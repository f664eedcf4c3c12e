"""A development SMTP server that stores every mail, and its pages."""
