"""The traces, where they are: BATON_TRACES, or beside the checkout."""

from pathlib import Path

import pytest

from simulator.workload.files import traces_folder


def trace(name: str) -> Path:
    """A trace's path; skips the test where there are none."""
    folder = traces_folder()
    if folder is None:
        pytest.skip("no traces: set BATON_TRACES to their folder")
    return folder / name


AZURE_CONV = "azure-llm-2023/AzureLLMInferenceTrace_conv.csv"
AZURE_CODE = "azure-llm-2023/AzureLLMInferenceTrace_code.csv"
CONVERSATION = "mooncake-fast25/conversation_trace.jsonl"
SYNTHETIC = "mooncake-fast25/synthetic_trace.jsonl"
