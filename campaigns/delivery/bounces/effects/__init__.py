"""What a classified bounce or complaint changes: feedback rows, suppressions, the circuit breaker."""
