"""Moderation: what may come in as a prompt and go out as an answer."""
