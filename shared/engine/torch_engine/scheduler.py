"""Which sequences run in the next step, and how many tokens of each: chunked prefill with continuous batching.

Pure: no tensor, no clock. Owns every sequence's place (prefilling or decoding) and its blocks, so that whatever a
sequence held is given back in one place. Decoding sequences run in every step, one token each; prompts share what
`chunk` allows, first come first served.
"""

from dataclasses import dataclass, field
from itertools import islice

from shared.engine.torch_engine.blocks import Blocks, digests
from shared.engine.torch_engine.sequence import Run
from shared.errors import BadRequest, Overloaded


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a prompt to compute: tokens [start, stop)."""

    run: Run
    start: int
    stop: int

    @property
    def completes(self) -> bool:
        """The prompt's last piece: the next token can be sampled from it."""
        return self.stop == len(self.run.tokens)


@dataclass(frozen=True, slots=True)
class Plan:
    """One step."""

    decodes: list[Run] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    fresh: list[int] = field(
        default_factory=list
    )  # blocks to set to zero first: they will be read beyond what is written
    preempted: list[Run] = field(default_factory=list)  # lost their blocks and are out

    def __bool__(self) -> bool:
        return bool(self.decodes or self.chunks)


class Scheduler:
    """Holds all sequences. `block_size` tokens per block, at most `max_sequences` at once."""

    def __init__(self, blocks: Blocks, *, block_size: int, max_sequences: int, chunk: int, prefix_cache: bool) -> None:
        self.blocks = blocks
        self._block_size = block_size
        self._max_sequences = max_sequences
        self._chunk = chunk
        self._prefix_cache = prefix_cache
        self._runs: dict[str, Run] = {}
        self._prefilling: dict[str, Run] = {}  # by key, as all three; oldest first
        self._decoding: dict[str, Run] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def idle(self) -> bool:
        """Nothing to run."""
        return not self._prefilling and not self._decoding

    @property
    def short(self) -> bool:
        """Whether the next step would push a sequence out."""
        free = self.blocks.free
        if free >= len(self._decoding):
            return False
        return free < sum(len(run.blocks) * self._block_size <= run.computed for run in self._decoding.values())

    def run(self, key: str) -> Run | None:
        """The sequence of that key, if it is here."""
        return self._runs.get(key)

    def cached(self, tokens: list[int]) -> int:
        """Count the leading tokens that need not be computed. Readable from any thread."""
        if not self._prefix_cache:
            return 0
        usable = (len(tokens) - 1) // self._block_size  # one token at least must be computed, for its logits
        return self.blocks.indexed(islice(digests(tokens, self._block_size), usable)) * self._block_size

    def add_prefill(self, run: Run) -> None:
        """Take in a prompt. Raises Overloaded when its blocks or its place cannot be had at once."""
        self._check_place(run)
        if self._prefix_cache:
            run.digests = list(digests(run.tokens, self._block_size))
            # one token at least must be computed, for its logits
            run.blocks = self.blocks.match(run.digests[: (len(run.tokens) - 1) // self._block_size])
            run.published = len(run.blocks)
            run.cached = run.computed = len(run.blocks) * self._block_size
        self._take(run, len(run.tokens))
        self._prefilling[run.key] = run

    def add_decode(self, run: Run, computed: int) -> None:
        """Take in a sequence whose first `computed` tokens are about to be imported. Raises Overloaded.

        It gets room for the next token too, so that it is not pushed out before its first step.
        """
        self._check_place(run)
        self._take(run, computed + 1)
        run.computed = computed
        self._decoding[run.key] = run

    def _check_place(self, run: Run) -> None:
        if run.key in self._runs:
            raise BadRequest(f"the engine already holds a sequence {run.key!r}")
        if len(self._runs) >= self._max_sequences:
            raise Overloaded(f"all {self._max_sequences} places in the batch are taken")

    def _take(self, run: Run, tokens: int) -> None:
        """Blocks for so many tokens, or give back what it has and raise Overloaded."""
        number = -(-tokens // self._block_size) - len(run.blocks)
        taken = self.blocks.allocate(number)
        if taken is None:
            self.blocks.release(run.blocks)
            run.blocks = []
            raise Overloaded(f"{number} KV blocks are needed and {self.blocks.free} are free")
        run.blocks += taken
        self._runs[run.key] = run

    def schedule(self) -> Plan:
        """The next step. Decoding sequences that find no block push out the youngest of them."""
        preempted: list[Run] = []
        fresh: list[int] = []
        short = [run for run in self._decoding.values() if len(run.blocks) * self._block_size <= run.computed]
        for run in short:
            while run.key in self._decoding and len(run.blocks) * self._block_size <= run.computed:
                taken = self.blocks.allocate(1)
                if taken is None:
                    youngest = next(reversed(self._decoding.values()))
                    preempted.append(youngest)
                    self.drop(youngest.key)
                else:
                    run.blocks += taken
                    fresh += taken
        chunks = self._chunks()
        fresh += [chunk.run.blocks[-1] for chunk in chunks if chunk.start == chunk.run.cached]
        return Plan(list(self._decoding.values()), chunks, fresh, preempted)

    def _chunks(self) -> list[Chunk]:
        chunks = []
        room = self._chunk
        for run in self._prefilling.values():
            if room <= 0:
                break
            stop = min(len(run.tokens), run.computed + room)
            chunks.append(Chunk(run, run.computed, stop))
            room -= stop - run.computed
        return chunks

    def advance(self, plan: Plan) -> None:
        """The step is computed, or will be before whatever is computed from now on. Call before a token is appended."""
        for run in plan.decodes:
            run.computed += 1
            if run.computed >= run.limit:  # it has had its last step; it keeps its blocks until that is read
                self._decoding.pop(run.key, None)
        for chunk in plan.chunks:
            run = chunk.run
            run.computed = chunk.stop
            full = min(run.computed // self._block_size, len(run.digests))
            for block, digest in zip(run.blocks[run.published : full], run.digests[run.published : full], strict=True):
                self.blocks.publish(block, digest)
            run.published = max(run.published, full)
            if chunk.completes:
                del self._prefilling[run.key]

    def drop(self, key: str) -> None:
        """Forget a sequence and give its blocks back; unknown keys are fine."""
        run = self._runs.pop(key, None)
        if run is None:
            return
        self._prefilling.pop(key, None)
        self._decoding.pop(key, None)
        self.blocks.release(run.blocks)
        run.blocks = []
        run.buffer = None
