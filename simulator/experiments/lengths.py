"""Lengths of real requests, in tokens in and out, that several experiments use; from the traces, where they are."""

from itertools import islice
from pathlib import Path
from typing import Final

from simulator.experiments.goodput import Pairs
from simulator.workload.files import TraceError, traces_folder
from simulator.workload.reading import read_trace

FILES: Final = {
    "Azure conv": "azure-llm-2023/AzureLLMInferenceTrace_conv.csv",
    "Azure code": "azure-llm-2023/AzureLLMInferenceTrace_code.csv",
    "Mooncake conv": "mooncake-fast25/conversation_trace.jsonl",
    "deepseek-r1": "servegen/reason/deepseek-r1",
}


def of_trace(name: str, seed: int, number: int = 4000) -> Pairs:
    """The first so many of a trace by its short name. Raises TraceError where there are no traces."""
    folder = traces_folder()
    if folder is None:
        raise TraceError("no traces: set BATON_TRACES to their folder")
    path: Path = folder / FILES[name]
    return [(one.input_tokens, one.output_tokens) for one in islice(read_trace(path, seed=seed), number)]
