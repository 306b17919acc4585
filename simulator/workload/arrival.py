"""One request as a workload tells it."""

from msgspec import Struct


class Arrival(Struct, frozen=True):
    """A client's request. What it says is not known, only how long it is and whose beginning it shares."""

    at: float  # seconds from the workload's begin
    input_tokens: int
    output_tokens: int  # 1 or more, the first token included
    blocks: tuple[int, ...] = ()  # of the prompt, in order, one id for each `block_tokens`, the last partial one too
    scenario: str = "chat"
    tenant: str = ""
    priority: int = 0

    def __post_init__(self) -> None:
        if self.input_tokens < 1 or self.output_tokens < 1:
            raise ValueError(f"a request has a token each way at least, not {self.input_tokens}, {self.output_tokens}")
