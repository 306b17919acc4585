"""vLLM's EngineCore with our connector, a hub and an arena, without the rest of Baton: one Core is one engine.

The arena is one for all cores of a test: what a prefill's ranks wrote, a decode's ranks read in place.
"""

import contextlib
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from shared.engine.vllm_engine.geometry import Geometry
from shared.engine.vllm_engine.notes import (
    Ended,
    FromVllm,
    Gathered,
    Loaded,
    Lost,
    Plan,
    Registered,
    Transfer,
    pack,
    parse,
)

os.environ.update(
    HF_HUB_OFFLINE="1",
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_NO_USAGE_STATS="1",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    VLLM_LOGGING_LEVEL="WARNING",
    VLLM_WORKER_MULTIPROC_METHOD="spawn",
    VLLM_USE_V2_MODEL_RUNNER="0",
    OMP_WAIT_POLICY="PASSIVE",
)
WAIT_S = 120.0
BLOCK = 128


def make_model(directory: Path, dtype: str = "bfloat16", **changes: int) -> Path:
    """A small random Llama with 4 KV heads."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    sizes = {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "vocab_size": 256,
        "max_position_embeddings": 4096,
        "initializer_range": 0.2,  # logits far apart: no verdict hangs on the last bit
    }
    model = LlamaForCausalLM(LlamaConfig(**{**sizes, **changes}, tie_word_embeddings=False))
    model.to(getattr(torch, dtype)).save_pretrained(directory)
    return directory


class Arena:
    """Shared memory that every process of a test may write."""

    def __init__(self, nbytes: int) -> None:
        self.fd = os.memfd_create("rig")
        os.ftruncate(self.fd, nbytes)
        self.memory = mmap.mmap(self.fd, nbytes)
        self.nbytes = nbytes
        self.path = f"/proc/{os.getpid()}/fd/{self.fd}"
        self._top = 0

    def take(self, nbytes: int) -> int:
        """An offset; ranges come one after another and are never used twice."""
        offset, self._top = self._top, self._top + -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        assert self._top <= self.nbytes, "the rig's arena is too small for this test"
        return offset


class Hub:
    """Notes of one core, in a thread."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._folder = tempfile.TemporaryDirectory()
        self.address = f"ipc://{self._folder.name}/notes"
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind(self.address)
        self.changed = threading.Condition()
        self.notes: list[FromVllm] = []
        self.registered: dict[bytes, Registered] = {}
        self.geometry: Geometry | None = None
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def of(self, transfer: str) -> list[FromVllm]:
        """All that was said of a transfer."""
        return [note for note in self.notes if not isinstance(note, Registered) and note.transfer == transfer]

    def close(self) -> None:
        self.stop.set()
        self._thread.join()
        self._socket.close(0)
        self._context.term()
        self._folder.cleanup()

    def _run(self) -> None:
        while not self.stop.is_set():
            if not self._socket.poll(100):
                continue
            sender, data = self._socket.recv_multipart()
            note = parse(data)
            with self.changed:
                self.notes.append(note)
                if isinstance(note, Registered):
                    self._register(sender, note)
                self.changed.notify_all()

    def _register(self, sender: bytes, note: Registered) -> None:
        self.registered[sender] = note
        if len(self.registered) == note.world:
            self.geometry = Geometry(list(self.registered.values()))
            plan = Plan(self._arena.path, self._arena.nbytes, self.geometry.before)
            for identity in self.registered:
                self._socket.send_multipart([identity, pack(plan)])


class Core:
    """One EngineCore, and what it has said."""

    def __init__(self, model: Path, arena: Arena, *, sends: bool, **options: Any) -> None:
        from vllm import AsyncEngineArgs
        from vllm.config import KVTransferConfig
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.core_client import EngineCoreClient
        from vllm.v1.executor import Executor

        self.arena = arena
        self.hub = Hub(arena)
        transfer = KVTransferConfig(
            kv_connector="BlockFreeConnector",
            kv_connector_module_path="shared.engine.vllm_engine.inside.connector",
            kv_role="kv_both" if sends else "kv_consumer",
            kv_load_failure_policy="fail",
            kv_connector_extra_config={"notes": self.hub.address, "owner": os.getpid()},
        )
        wanted = {"dtype": "bfloat16", "enforce_eager": True, "max_model_len": 1024, **options}
        args = AsyncEngineArgs(model=str(model), skip_tokenizer_init=True, kv_transfer_config=transfer, **wanted)
        config = args.create_engine_config(UsageContext.ENGINE_CONTEXT)
        self.client = EngineCoreClient.make_client(True, False, config, Executor.get_class(config), True)
        self.tokens: dict[str, list[int]] = {}
        self.ended: dict[str, str] = {}
        self.cached: dict[str, tuple[int, int]] = {}  # tokens found locally, and by the connector
        self.dead: BaseException | None = None
        self._numbers = iter(range(1 << 30))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def add(self, prompt: list[int], count: int, transfer: Transfer | None = None, *, sends: bool = False) -> str:
        """Begin a request; its id."""
        from vllm import SamplingParams
        from vllm.v1.engine import EngineCoreRequest

        name = str(next(self._numbers))
        self.tokens[name] = []
        extra = {} if transfer is None else {"kv_transfer_params": transfer.params(sends=sends)}
        params = SamplingParams(
            temperature=0.0, max_tokens=count, ignore_eos=True, detokenize=False, extra_args=extra or None
        )
        self.client.add_request(
            EngineCoreRequest(
                request_id=name,
                prompt_token_ids=prompt,
                mm_features=None,
                sampling_params=params,
                pooling_params=None,
                arrival_time=time.time(),
                lora_request=None,
                cache_salt=None,
                data_parallel_rank=None,
            )
        )
        return name

    def abort(self, name: str) -> None:
        self.client.abort_requests([name])

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for what notes or outputs bring."""
        with self.hub.changed:
            held = self.hub.changed.wait_for(lambda: condition() or self.dead is not None, WAIT_S)
        assert self.dead is None, f"EngineCore died: {self.dead!r}"
        assert held, f"it did not happen that {what}"

    def finish(self, name: str) -> list[int]:
        """The tokens of a request that ends well."""
        self.until(lambda: name in self.ended, f"request {name} ended")
        assert self.ended[name] == "LENGTH", self.ended[name]
        return self.tokens[name]

    def generate(self, prompt: list[int], count: int) -> list[int]:
        return self.finish(self.add(prompt, count))

    def transfer(self, name: str, tokens: int, offset: int | None = None) -> Transfer:
        """A buffer for so many tokens."""
        assert self.hub.geometry is not None
        blocks = -(-tokens // self.hub.geometry.block_tokens)
        place = self.arena.take(blocks * self.hub.geometry.block_bytes) if offset is None else offset
        return Transfer(name, place, tokens, blocks)

    def moved(self, transfer: str) -> list[type]:
        """Wait until a transfer that moves is over; the kinds of its ranks' notes."""
        world = len(self.hub.registered)
        kinds = (Gathered, Loaded, Lost)

        def over() -> bool:
            notes = self.hub.of(transfer)
            return any(isinstance(note, Ended) for note in notes) and sum(isinstance(n, kinds) for n in notes) >= world

        self.until(over, f"transfer {transfer} was over")
        return [type(note) for note in self.hub.of(transfer) if isinstance(note, kinds)]

    def idle(self) -> None:
        """Assert that no block is held: vLLM gives its prefix cache up only then. What delays a free is a step away."""
        deadline = time.monotonic() + 20
        while not self.client.reset_prefix_cache():
            assert time.monotonic() < deadline, "blocks are held for ever"
            time.sleep(0.02)

    def close(self) -> None:
        self.client.shutdown()
        self.hub.close()

    def _read(self) -> None:
        try:
            while True:
                self._take(self.client.get_output())
        except BaseException as error:  # noqa: BLE001  shown by whoever waits
            with self.hub.changed:
                self.dead = error
                self.hub.changed.notify_all()

    def _take(self, outputs: Any) -> None:
        with self.hub.changed:
            for output in outputs.outputs:
                self.tokens[output.request_id] += output.new_token_ids
                stats = getattr(output, "prefill_stats", None)
                if stats is not None:
                    found = (stats.num_local_cached_tokens, stats.num_external_cached_tokens)
                    self.cached.setdefault(output.request_id, found)
                if output.finish_reason is not None:
                    self.ended[output.request_id] = output.finish_reason.name
            self.hub.changed.notify_all()


def relay(prefill: Core, decode: Core, prompt: list[int], count: int, name: str) -> list[int]:
    """The tokens of a prompt that is prefilled in one core and decoded in the other."""
    transfer = prefill.transfer(name, len(prompt))
    first = prefill.finish(prefill.add(prompt, 1, transfer, sends=True))
    assert set(prefill.moved(name)) == {Gathered}
    rest = decode.finish(decode.add(prompt + first, count - 1, transfer))
    return first + rest


@contextlib.contextmanager
def cores(*makers: Callable[[], Core]) -> Any:
    """Start several at once; each takes half a minute."""
    made: list[Core | BaseException | None] = [None] * len(makers)

    def make(place: int) -> None:
        try:
            made[place] = makers[place]()
        except BaseException as error:  # noqa: BLE001  raised below, in the test's thread
            made[place] = error

    threads = [threading.Thread(target=make, args=(place,)) for place in range(len(makers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good = [core for core in made if isinstance(core, Core)]
    try:
        for core in made:
            if isinstance(core, BaseException):
                raise core
        yield good
    finally:
        for core in good:
            core.close()
