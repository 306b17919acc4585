"""What clients may ask: the request shapes of the public API, and how they are read."""
