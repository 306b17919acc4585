"""Gateways, workers and the monitor around the deciders: they perform in simulated time what the services perform."""
