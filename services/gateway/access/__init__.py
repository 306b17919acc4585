"""Who may ask, and how much: keys, tokens of an identity provider, the limits of tenants."""
