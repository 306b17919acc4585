"""API keys: their form, where they are kept, and what is logged of them. Imports no service."""
