"""A plan in words and as JSON."""

from typing import TYPE_CHECKING, Any

from simulator.planner.search import Fleet

if TYPE_CHECKING:
    from simulator.planner.command import Plan


def as_text(plan: "Plan") -> str:
    """For people: the fleet, what it reaches, what surrounds it, and the lines of a configuration."""
    demand, fleet, found = plan.demand, plan.fleet, plan.fleet.found.figures
    ttft, tpot = (" and ".join(_ms(one.percentile(p)) for p in (50, 99)) for one in (found.ttft, found.tpot))
    lines = [
        f"traffic     {len(demand.arrivals):,} requests in {demand.seconds / 60:.0f} min: {demand.rate:.2f}/s,",
        f"            {demand.peak:.2f}/s in the busiest {demand.span_s / 60:.0f} min",
        f"            prompts of {demand.prompt:.0f} tokens, answers of {demand.answer:.0f}",
        f"objectives  {plan.aims}",
        f"fleet       {told(fleet)}",
        f"reaches     {100 * fleet.found.share:.2f} %; p50 and p99 of TTFT are {ttft}, of TPOT {tpot}",
    ]
    if found.cached:
        lines.append(f"            {100 * found.hits:.0f} % of the prompts' tokens are found in caches")
    for name, other in plan.others:
        lines.append(f"beside      {told(other) if other is not None else f'{name}: out of reach'}")
    lines.append("near it     (share within the objectives, price of an hour)")
    width = max(len(near.what) for near in plan.near)
    lines += [f"            {near.what:{width}}  {100 * near.share:6.2f} %  {near.price:8.2f}" for near in plan.near]
    if plan.tide is not None:
        groups = " ".join(str(number) for number in plan.tide.groups[:24])
        lines.append(f"tide        one group carries {plan.tide.carries:.2f}/s; groups by the hour: {groups}")
        lines.append(f"            {100 * plan.tide.share_of_hours:.0f} % of the hours of a fleet that never changes")
    return "\n".join([*lines, "", *_configuration(plan)]) + "\n"


def told(fleet: Fleet) -> str:
    """A fleet in one line."""
    group = fleet.group
    many = f"{fleet.groups} groups" if fleet.groups > 1 else "one group"
    return (
        f"{many} of {group.prefill}:{group.decode}, prefill to decode, {group.profile.name}; "
        f"{fleet.devices} devices, {fleet.price:.2f} an hour"
    )


def _configuration(plan: "Plan") -> list[str]:
    fleet, aims = plan.fleet, plan.aims
    lines = [
        "[scenario.chat]",
        f"prefill = {fleet.group.prefill}",
        f"decode = {fleet.group.decode}",
        f"groups = {fleet.groups}",
        f"ttft_slo_ms = {round(1000 * aims.ttft_s)}",
        f"tpot_slo_ms = {round(1000 * aims.tpot_s)}",
        "[scenario.chat.engine_options]",
        f"max_num_seqs = {min(fleet.batch, fleet.group.profile.max_sequences)}",
    ]
    if plan.tide is not None:
        quoted = ", ".join(f'"{line}"' for line in plan.tide.lines)
        lines += ["[scenario.chat.scale]", f"timetable = [{quoted}]"]
    return lines


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def as_json(plan: "Plan") -> dict[str, Any]:
    """For programs."""
    found = plan.fleet.found.figures
    return {
        "traffic": {
            "requests": len(plan.demand.arrivals),
            "rate": plan.demand.rate,
            "peak": plan.demand.peak,
            "prompt_tokens": plan.demand.prompt,
            "answer_tokens": plan.demand.answer,
        },
        "slo": {"ttft_s": plan.aims.ttft_s, "tpot_s": plan.aims.tpot_s, "share": plan.aims.share},
        "fleet": {
            **_fleet(plan.fleet),
            "share": plan.fleet.found.share,
            "ttft_p99_s": found.ttft.percentile(99),
            "tpot_p99_s": found.tpot.percentile(99),
        },
        "others": {name: None if one is None else _fleet(one) for name, one in plan.others},
        "near": [{"what": near.what, "share": near.share, "price": near.price} for near in plan.near],
        "tide": None if plan.tide is None else {"groups": list(plan.tide.groups), "timetable": list(plan.tide.lines)},
    }


def _fleet(fleet: Fleet) -> dict[str, Any]:
    return {
        "profile": fleet.group.profile.name,
        "groups": fleet.groups,
        "prefill": fleet.group.prefill,
        "decode": fleet.group.decode,
        "devices": fleet.devices,
        "price": fleet.price,
        "max_num_seqs": min(fleet.batch, fleet.group.profile.max_sequences),
    }
