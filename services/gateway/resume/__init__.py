"""Streams that go on here although they began at another gateway, or after their client was away.

`memo` is what travels with a request so that any gateway knows how its answer looks, `claims` asks the workers how
far it came, `reopening` makes a call of it and brings its text up to where it stands.
"""
