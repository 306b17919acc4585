"""All that is to be known of an instance to simulate it: how long it computes, how much it holds, what it costs."""

from dataclasses import dataclass

from simulator.engine.timing import Timing


@dataclass(frozen=True, slots=True)
class Profile:
    """One model on one kind of instance, with one parallel strategy."""

    name: str
    timing: Timing
    kv_tokens: int  # that its cache holds
    kv_bytes_per_token: int
    block_tokens: int = 16
    max_sequences: int = 256  # of a decode batch
    prefill_at_once: int = 1  # prompts computed side by side, none slower for it; 0: any number (the sim engine)
    devices: int = 1  # of one instance
    load_s: float = 60.0  # from a role to ready
    price: float = 1.0  # of one device's hour
    source: str = ""  # where the figures come from
    strategy: str = ""  # how the model is split, like tp8

    @property
    def blocks(self) -> int:
        """Blocks of its cache."""
        return self.kv_tokens // self.block_tokens

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.block_tokens)

    def kv_bytes(self, tokens: int) -> int:
        """Bytes of the KV buffer of so many tokens: whole blocks."""
        return self.blocks_for(tokens) * self.block_tokens * self.kv_bytes_per_token
