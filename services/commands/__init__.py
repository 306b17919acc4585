"""What the `baton` command does to a cluster that runs, local or not. Imports no service, starts nothing."""
