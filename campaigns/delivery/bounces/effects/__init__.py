"""Effects of a classified bounce or complaint: feedback rows, suppressions, the circuit breaker."""
