"""The pure deciders: events and `now` (monotonic seconds) go in, a list of actions comes out.

Nothing here does I/O, reads a clock, draws a random number or awaits. The services perform the actions; the tests and
the simulator run the same code.
"""
