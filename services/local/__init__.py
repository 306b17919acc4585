"""`baton up`: a whole cluster on one machine, as child processes of one supervisor. Imports no service."""
