"""The sending worker: batches, connection pools per relay, pacing per provider."""
