"""The fleet simulator: the deciders of `shared/policy`, unchanged, against traces, at ten thousand instances.

Discrete events on one core. `workload` says who comes, `engine` how long computing takes, `network` how long KV is on
its way, `faults` what breaks; `cluster` puts gateways, workers and the monitor around the deciders, as the services do;
`measures` says how it went. `experiments` are the figures of docs/simulation.md, `planner` is `baton plan`. Same seed,
same result, to the last digit.
"""
