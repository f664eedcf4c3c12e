"""Bot detection: rules, signals, bursts, gateways and final labels."""
