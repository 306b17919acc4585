"""How it went: what became of each request, and the figures that are made of it."""
