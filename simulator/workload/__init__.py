"""Who comes when, and how long their prompts and answers are: traces, their like drawn from a seed, and mixtures.

A workload is an iterable of `Arrival` in the order of time, lazy where it can be: a million need no memory.
"""
