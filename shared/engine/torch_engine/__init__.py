"""The default engine: a compact decoder in plain torch, on whatever device `device.py` resolves.

A step, from outside in: `engine` (the protocol, and the thread that owns torch) takes commands between steps;
`scheduler` says which sequences run how many tokens, over `blocks` of the cache; `batch` lays the step out as arrays;
`model` runs `layers` over it with paged `attention`; `sampling` draws the tokens. `scheduler` and `blocks` are pure.
"""
