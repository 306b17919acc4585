"""Makes what is into what is planned: who serves in which group, who takes whose place, how far each group is.

`decider` is the whole; `events` what it is told and asks for. `census` says who is there and who is lost, `plans` what
is wanted, `groups` who is where (the maps), `joining` and `forming` who is verified and how far a group is, `holes`,
`surplus`, `spares` and `staffing` who goes where, `substitutes` and `steps` how far those have come.
"""

from shared.policy.fleet.decider import Fleet

__all__ = ["Fleet"]
