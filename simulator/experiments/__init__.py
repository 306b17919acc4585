"""The figures of docs/simulation.md: one module each, one command each, `python -m simulator NAME`."""
