"""An engine without a model: timings by formula, and text that depends on every byte of the KV cache it holds."""
