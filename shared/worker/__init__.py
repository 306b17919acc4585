"""What prefill and decode workers have in common, kept once because services never import each other.

`running` is one attempt at work, `roster` all of them, `tokens` turns a sampled token into what the client sees,
`frames` publishes it, `peers` knows the other workers, `metrics` counts, `standing` holds it all together. Who may come
in is `shared.policy.admission`'s business.
"""
