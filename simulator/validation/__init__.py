"""The simulator held against real clusters: loads that both serve, recorded runs, and how far apart the two are."""
