"""vLLM's own server against the relay with vLLM in it, and with the torch engine: one model, one machine, one run.

`python -m bench vllm` in an environment that has vLLM (`make test-vllm` makes one), or, with options,
`python -m bench.vllm --model gemma-3-270m --streams 1 16`. By default a small random Llama is served, so that the front
ends show: Python before the engines, for every token. With a real model the engines do.

Each server stands alone on the machine while it is measured, and all of them get the same requests: streamed
completions of prompts of equal length that nobody has cached, each answered by so many tokens. What is equal: dtype,
KV cache of each engine, the most sequences of a batch. What is not: the relay is two workers, a gateway, NATS, Redis
and a monitor where the server is two processes, and here all share the cores with the client. On machines with few
cores that counts against the relay; a fleet gives each a machine.

Each side takes the threads that it takes by itself, and vLLM's server comes in several forms (compiled or eager, the
cores that it chooses or all of them), of which the fastest at each number of streams is the baseline. It has a rank
process beside its core, as it starts by default; each asks for the other without a pause. The relay's engines of vLLM
compute in the core itself (`shared.engine.vllm_engine.options.ONE_PROCESS`), for its two workers share the machine.
"""

from typing import TYPE_CHECKING

from bench.table import Row

if TYPE_CHECKING:
    from bench.vllm.plan import Plan


def rows(plan: "Plan | None" = None) -> list[Row]:
    """Measure each server at each number of streams."""
    from bench.vllm.turns import run  # noqa: PLC0415  the client, a process of its own, needs none of it

    return run(plan)
