"""What every service shares: the wire, the deciders, the KV hand-off and the engines. Imports no service."""
