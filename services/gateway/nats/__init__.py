"""The NATS entrance."""
