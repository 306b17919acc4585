"""What was known before each experiment: what the papers showed, and under which conditions. In the order of the page.

Figures are those that the papers print: P/D-Serve is arXiv 2408.08147, ScaleLLM arXiv 2408.00008, Mooncake the paper of
FAST 2025. P/D-Serve's plots are normalised to 0..1 and name no model, no lengths and no times, so a figure can be
re-enacted in its shape only.
"""

from typing import Final

INTRODUCTIONS: Final = {
    "fig12a": """
P/D-Serve: in one scenario a single prefill is capable of 0.6 of some rate and a single decode of 0.7. However
many prefills stand before one decode, the whole stays at 0.7; however many decodes behind one prefill, at 0.6.
Whatever stands on the richer side of a mismatch is paid for and idle.""",
    "fig12b": """
P/D-Serve: with prefills capable of A and decodes of 2 A, an input of 1.25 A already shifts the distribution of
T_p, the time of a prompt until its first token.""",
    "fig12c": """
P/D-Serve: answers that are 50 % longer lower what the decodes are capable of, at an unchanged ratio.""",
    "fig12d": """
P/D-Serve goes by two signals: E2E grows and T_p / E2E with it, more prefill; E2E grows and T_p / E2E falls, more
decode. It gives no threshold ("change dramatically").""",
    "fig13a": """
P/D-Serve: the best ratio carries at least 60 % more than the same system at two other ratios, in a closed loop
whose number of outstanding requests is raised until the success within the E2E objective falls below 100 %. The
ratio comes from n_p b_p / T_p = n_d b_d / T_d.""",
    "fig13b": """
P/D-Serve adjusts a running group: instances are added or rebuilt piece by piece, as the two signals ask for it.""",
    "fig14a": """
P/D-Serve: when the users grow from A to 4 A, their first version (a queue in each prefill, the gateway picks the
one with the fewest connections) falls from 100 % of its TTFT objective to 57 %; with prefills that accept or
reject, and a gateway that asks on, it stays at 99 % or more under a heavier load.""",
    "fig14b": """
P/D-Serve: traffic has tides. Where the mix stays and only the amount turns, whole groups come and go by the hour,
at an unchanged ratio, and what is free trains models meanwhile.""",
    "transfer": """
P/D-Serve: one contiguous buffer per request against blocks confirmed one after another, on one RoCE network: 46 %
less mean time of transfer. Path conflicts cost up to hundreds of milliseconds.""",
    "grouping": """
P/D-Serve: one pool for everything fails, because every prefill would have to cache every prefix, tens of them per
scenario. Groups per scenario, isolated from each other, keep each prefill's cache to what its own prompts share.
T_p = TTFT x r_pre, where r_pre is what the prefix leaves to compute.""",
    "aggregated": """
P/D-Serve claims 6.7 times the throughput of aggregated serving, and shows no experiment for it: no model, no
lengths, no objectives. So the question is turned around: under which lengths and objectives is disaggregated
serving so much better, and under which is it worse?""",
    "bands": """
ScaleLLM proposes to choose how the model is split by concurrency, among nodes that stand there already: below 64
one replica of 8 devices (TP8), from 64 two of TP4, above 512 four of TP2. It was not evaluated; by the paper's
own measurements four of TP2 win from 128 on: 9,147 tokens/s against 8,273 and 5,269.""",
    "month": """
P/D-Serve, after BLOOM: of 400 devices one or two break in a week. A lost instance is replaced alone, by a
container without a role that loads the model in minutes; the rest of its group serves on. The alternative is to
restart it all.""",
    "around": """
The month is told as a fluid, since single requests over a month at this size are too many. So single requests are
simulated around one fault of each kind, and compared with what the fluid says of it.""",
    "local": """
Dynamo computes a prompt at the decode itself when little of it is new: at most 2,048 uncached tokens and 0.7 of
the prompt, by default. That spares the transfer, and makes the decode's other streams wait.""",
    "rejection": """
Mooncake, its trace replayed at twice its speed: 4,183 requests were rejected late, after their prefill; 3,771
when rejected early by the load of the moment, which oscillates, because the load is looked at before the request
reaches the decode; 3,589 when by the load that is predicted for that moment (all reported second-hand).""",
    "scale": """
P/D-Serve serves on tens of thousands of devices. The deciders must not look at the whole fleet for each request:
what a request costs must not depend on how many instances there are.""",
    "million": """
The same fleet, and a million requests: 500 seconds of one core's time where an idle Python adds ten million numbers in
1.1 seconds.""",
    "validation": """
What the simulator says is worth what it shares with the cluster. The same requests through the services with the sim
engine on one machine, three times, and through the simulator with a profile of that engine. What a message, the client
and a byte of KV cost there is fitted to another load.""",
    "prefixes": """
Mooncake's traces name the blocks of each prompt. With a cache without bounds 36.6 % of the blocks of its
conversations and 64.0 % of the synthetic ones are found again; with a bounded one that forgets the least recently
used, less. Whoever counts blocks rightly must find exactly these.""",
}
