"""The default engine: a compact decoder in plain torch, on whatever device `device.py` resolves.

A step, from outside in: `engine` (the protocol, and the thread that owns torch) takes commands between steps; `runner`
asks `scheduler` which sequences run how many tokens, over `blocks` of the cache; `executor` has a layout make a `Batch`
of that, with one `view` of the cache per kind of layer, and `model` runs `layers` over it; `drawing` draws the tokens.
`scheduler` and `blocks` are pure. What one kind of device alone has is in `cpu` and `cuda`, several of them in `ranks`.
"""

import os

# Threads that wait must sleep. By default OpenMP's spin, and when two engines share the cores (prefill and decode on
# one machine) each spins through the time slice that the other needs: steps become ten times slower. Read by torch's
# OpenMP when torch is first imported, hence here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
