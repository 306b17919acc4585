"""The gateway: the HTTP and NATS entrance. Validates, tokenises, dispatches, streams, recovers. Never loads torch."""
