"""Bot detection: rules, signals, bursts, gateways and the final labels."""
