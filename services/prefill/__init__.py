"""The prefill service: runs prompts, sends first tokens, hands KV caches to decode workers."""
