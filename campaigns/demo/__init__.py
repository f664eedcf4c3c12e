"""A sample company, a simulated audience, and a mail catcher."""
