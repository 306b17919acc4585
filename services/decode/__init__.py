"""The decode service: takes KV caches in, batches continuously, publishes one frame per gateway and step."""
