"""Calls of functions: how models write them, how they are told of them, held to them, and read by us."""
