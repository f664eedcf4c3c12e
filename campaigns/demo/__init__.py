"""Demo: a sample company and a simulated audience."""
