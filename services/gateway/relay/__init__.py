"""The requests under way: their records, the offers to workers, what the dispatcher decides."""
