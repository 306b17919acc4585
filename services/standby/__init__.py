"""An instance without a role yet: waits for one, then becomes it."""
