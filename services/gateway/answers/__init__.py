"""How answers look: JSON shapes, server-sent events, maps over NATS."""
