"""Which figures make which picture: from the rows of benchmarks, and from the files that some of them write."""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from bench.plots import svg
from bench.table import Row

Chart = dict[str, Any]
Points = dict[str, list[list[float]]]

HANDOFF: Final = re.compile(r"hand-off (tcp|shm), 8B, (\d+)k")
STEPS: Final = {
    "batch": re.compile(r"(torch|sim) step, ([\d,]+) sequences"),
    "finished": re.compile(r"(torch|sim) step, after ([\d,]+) finished"),
}
FIRST: Final = {"batch": 1.0, "finished": 0.0}
"""Where the baseline of these rows is."""
NAMES: Final = {"torch": "torch engine, small model", "sim": "scheduling alone"}
TOKENS: Final = re.compile(r"step to frame, (\d+) streams, (.+)")
SHOWN: Final = {"gemma-3-270m, words": "words", "gemma-3-270m, words, stop strings": "words, stop strings"}
FRONT_AIM_US: Final = 8.0
AIMS: Final = {"decode": 0.75, "prefill": 0.55}
"""Of the device's memory bandwidth, and of its rate of matrix products."""


def of_rows(rows: Iterable[Row]) -> dict[str, Chart]:
    """Charts that can be made of these rows, by the name of their file, without a place."""
    rows = list(rows)
    found = {"handoff": _handoff(rows), "tokens": _tokens(rows)}
    found |= {f"steps-{axis}": _steps(rows, axis) for axis in STEPS}
    return {name: chart for name, chart in found.items() if chart["lines"]}


def _handoff(rows: list[Row]) -> Chart:
    """A prompt's KV from one process to another, one buffer against its pages."""
    points: Points = defaultdict(list)
    for row in rows:
        if (seen := HANDOFF.fullmatch(row.name)) and row.baseline_name == "block-fixed, pages":
            transport, tokens = seen[1], float(seen[2]) * 1024
            points[f"{transport}, one buffer"].append([tokens, row.value])
            points[f"{transport}, block by block"].append([tokens, row.baseline])
    return {
        "title": "A prompt's hand-off, one buffer against blocks confirmed one by one",
        "subtitle": "KV of an 8B model between two processes of one machine; less is better",
        "x": {"label": "prompt, tokens", "log": True},
        "y": {"label": "ms", "log": True},
        "lines": _named(points, weak="block by block"),
    }


def _tokens(rows: list[Row]) -> Chart:
    """What a token costs at the decode's front end."""
    points: Points = defaultdict(list)
    streams = []
    for row in rows:
        if (seen := TOKENS.fullmatch(row.name)) and (name := SHOWN.get(seen[2])):
            streams.append(float(seen[1]))
            points[name].append([streams[-1], row.value])
            if row.baseline_name == "DecodeStream alone" and name == "words":
                points["detokeniser of tokenizers"].append([streams[-1], row.baseline])
    lines = _named(points, weak="detokeniser")
    if lines:
        aim = [[min(streams), FRONT_AIM_US], [max(streams), FRONT_AIM_US]]
        lines.append({"name": "aim", "points": aim, "dashed": True, "colour": svg.SOFT})
    return {
        "title": "Processor time per token at a decode, from step to frame",
        "subtitle": "detokenising, stop strings, framing; less is better",
        "x": {"label": "streams", "log": True},
        "y": {"label": "µs per token"},
        "lines": lines,
    }


def _steps(rows: list[Row], axis: str) -> Chart:
    """A step of a small model, where what surrounds the model shows."""
    points: Points = defaultdict(list)
    for row in rows:
        if seen := STEPS[axis].fullmatch(row.name):
            name, first = NAMES[seen[1]], FIRST[axis]
            if not points[name]:
                points[name].append([first, row.baseline])
            points[name].append([float(seen[2].replace(",", "")), row.value])
    by_batch = axis == "batch"
    return {
        "title": "A decoding step against its batch" if by_batch else "A decoding step does not know who was before",
        "subtitle": "four layers, 256 wide, 32,000 tokens of vocabulary, bfloat16, contexts of 128"
        + ("" if by_batch else "; 16 sequences"),
        "x": {"label": "sequences" if by_batch else "sequences that ended before", "log": by_batch},
        "y": {"label": "ms", "log": by_batch},
        "lines": _named(points, weak="alone"),
    }


def _named(points: Points, weak: str) -> list[Chart]:
    return [
        {"name": name, "points": sorted(found)} | ({"colour": svg.SOFT} if weak in name else {})
        for name, found in points.items()
    ]


def of_device(found: dict[str, Any]) -> Chart:
    """Of the file that `bench.device` writes: shares of the roofs."""
    plan = found["plan"]
    bars = [
        {
            "name": f"decode, batch {batch}",
            "share": one["roofline"],
            "said": f"{one['step_ms']:.1f} ms",
            "aim": AIMS["decode"],
        }
        for batch, one in found.get("decode", {}).items()
    ]
    if one := found.get("prefill"):
        name = f"prefill, {plan['prompt']} tokens"
        said = f"{one['tflop_s']:.0f} TFLOP/s"
        bars.append({"name": name, "share": one["roofline"], "said": said, "aim": AIMS["prefill"]})
    roofs = found["roofs"]
    return {
        "title": f"Llama 3.1 8B's sizes in bfloat16: share of what the {found['place'].get('device', 'device')} can do",
        "subtitle": f"decode at {plan['context']} tokens against {roofs['copy_gb_s'] / 1000:.2f} TB/s of a copy, "
        f"prefill against {roofs['matmul_tflop_s']:.0f} TFLOP/s of a product; marks: aims",
        "bars": bars,
        "place": found["place"],
    }


def of_servers(name: str, found: dict[str, Any]) -> Chart:
    """Of the file that `bench.vllm --json` writes: tokens per second of every server."""
    lines = []
    for server, figures in found["found"].items():
        points = sorted([float(streams), one["tokens_s"]] for streams, one in figures.items())
        if points:
            lines.append({"name": server, "points": points} | ({"colour": svg.SOFT} if server[:4] == "vllm" else {}))
    lines.sort(key=lambda line: "colour" in line)  # ours get the colours in their order
    plan = found["plan"]
    return {
        "title": f"Tokens per second of whole servers, {name}",
        "subtitle": f"{plan['dtype']}, prompts of {plan['prompt']}, answers of {plan['answer']} tokens, all processes "
        "and the client on the same cores; more is better",
        "x": {"label": "streams", "log": True},
        "y": {"label": "tokens/s", "log": True},
        "lines": lines,
        "place": found["place"],
    }
