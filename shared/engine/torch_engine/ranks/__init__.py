"""One model over several devices: tensor parallelism of the torch engine (docs/decisions/0016).

Rank 0 lives in the worker's process, as an engine of one device does; the others are child processes, each with a part
of the weights and of the KV heads. A step, from outside in: `leader` tells the followers what it is about to do, over a
`line`, in a note that `plans` makes of a plan; `follower` does the same over there; `collective` adds up what the ranks
have computed. `moves` takes a rank's heads to and from the buffers in the worker's arena. `crew` watches the followers.
`shards` and `plans` are pure.
"""
