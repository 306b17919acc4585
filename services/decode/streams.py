"""The running batch as streams: each engine step becomes one frame per gateway.

Owns which sequences are live and that each ends once, with Finished or Failed. Reserves and frees nothing: the task
that owns an attempt waits on `Stream.over` and frees. `_draft` is the path of every token: it has nothing to do for
most of them but to look a text up and write it down, and no feature goes there that could be elsewhere.
"""

import asyncio
import logging
import time

from msgspec import structs

from shared.engine import Engine, Sampled, Step
from shared.errors import BatonError, TooLarge, WorkerLost
from shared.failpoints import failpoint
from shared.messages import Finish, Finished, Request
from shared.worker.frames import Draft, FrameSender, failed
from shared.worker.metrics import WorkerMetrics
from shared.worker.progress import Progress
from shared.worker.tokens import Pieces, Shown, Text, finished, logprobs_of, show
from shared.worker.work import WorkMeter

log = logging.getLogger(__name__)


class Stream:
    """One sequence in the batch. `over` brings None when it has `ended` in a frame, or the error it must end with."""

    __slots__ = ("cached_tokens", "ended", "gateway", "index", "key", "over", "progress", "request", "text")

    def __init__(self, key: str, request: Request, text: Text, cached_tokens: int, progress: Progress) -> None:
        self.key = key
        self.request = request
        self.gateway = request.gateway
        self.progress = progress
        self.text = text
        self.index = request.generated  # of the next token
        self.cached_tokens = cached_tokens
        self.ended = False
        self.over: asyncio.Future[BatonError | None] = asyncio.get_running_loop().create_future()

    def close(self, error: BatonError | None) -> None:
        """Tell the owner, unless it stopped listening."""
        if not self.over.done():
            self.over.set_result(error)


class Streams:
    """Reads the engine's steps and publishes them."""

    def __init__(
        self,
        engine: Engine,
        sender: FrameSender,
        pieces: Pieces,
        metrics: WorkerMetrics,
        work: WorkMeter | None = None,
    ) -> None:
        self._work = work if work is not None else WorkMeter()
        self._engine = engine
        self._sender = sender
        self._pieces = pieces
        self._metrics = metrics
        self._live: dict[str, Stream] = {}

    def __len__(self) -> int:
        return len(self._live)

    def join(self, stream: Stream) -> None:
        """Tokens of this sequence are published from now on; call it before the engine can sample one."""
        self._live[stream.key] = stream
        self._work.slots.add(1, time.monotonic())

    def leave(self, stream: Stream) -> None:
        """Publish no more of it."""
        if self._live.pop(stream.key, None) is not None:
            self._work.slots.add(-1, time.monotonic())

    async def pump(self) -> None:
        """Publish every step until the engine closes; raises EngineFailed when it dies."""
        async for step in self._engine.steps():
            failpoint("decode.step")
            for gateway, draft in self._draft(step).items():
                await self._publish(gateway, draft)

    def _draft(self, step: Step) -> dict[str, Draft]:
        drafts: dict[str, Draft] = {}
        live = self._live
        for sampled in step.sampled:
            stream = live.get(sampled.key)
            if stream is None:  # released while the step ran
                continue
            draft = drafts.get(stream.gateway)
            if draft is None:
                draft = drafts[stream.gateway] = Draft()
            try:
                if sampled.finish is None and sampled.alternatives is None:
                    text = stream.text
                    self._write(draft, stream, sampled.token_id, text.push(sampled.token_id))
                    if text.matched is not None:
                        self._finish(draft, stream, Shown("", Finish.STOP, text.matched))
                else:
                    self._add(draft, stream, sampled)
            except Exception as error:  # one stream's text must not end everybody's
                log.exception("a token could not be shown", extra={"request": stream.request.request_id})
                self._end(draft, stream, BatonError(f"internal error: {type(error).__name__}"))
        for key, failure in step.failed:
            failing = live.get(key)
            if failing is not None:
                self._end(drafts.setdefault(failing.gateway, Draft()), failing, failure)
        self._metrics.step(len(step.sampled))
        self._work.tokens += len(step.sampled)
        return drafts

    def _write(self, draft: Draft, stream: Stream, token_id: int, text: str) -> None:
        """One more entry, in the frame and in what is kept for another gateway."""
        progress = stream.progress
        progress.ids.append(token_id)
        progress.texts.append(text)
        draft.token(stream.request, stream.index, token_id, text)
        stream.index += 1

    def _add(self, draft: Draft, stream: Stream, sampled: Sampled) -> None:
        """A token that ends its stream, or that has logprobs."""
        request, progress = stream.request, stream.progress
        shown = show(stream.text, sampled, request.stopping)
        if sampled.alternatives is not None and request.sampling.logprobs is not None:
            logprobs = logprobs_of(self._pieces, len(draft.ids), sampled.token_id, sampled.alternatives)
            draft.logprobs.append(logprobs)
            progress.logprobs.append(structs.replace(logprobs, entry=len(progress.ids)))
        self._write(draft, stream, sampled.token_id, shown.text)
        if shown.reason is not None:
            self._finish(draft, stream, shown)

    def _finish(self, draft: Draft, stream: Stream, shown: Shown) -> None:
        self._end(draft, stream, finished(stream.request, shown, stream.index, stream.cached_tokens))

    def _end(self, draft: Draft, stream: Stream, ending: Finished | BatonError) -> None:
        self.leave(stream)
        failpoint("decode.ending")
        stream.ended = True
        if isinstance(ending, BatonError):
            self._metrics.ended(ending.code)
            draft.ended.append(failed(stream.request, ending))
        else:
            self._metrics.ended(ending.reason)
            self._work.passed += 1
            stream.progress.ended = ending
            draft.ended.append(ending)
        stream.close(None)

    async def _publish(self, gateway: str, draft: Draft) -> None:
        try:
            await self._sender.send(gateway, draft)
        except BatonError as error:
            log.warning("a frame was lost", extra={"gateway": gateway, "entries": len(draft.ids), "error": str(error)})
            self._metrics.frame_lost()
            self._lost(gateway, set(draft.streams), error)

    def _lost(self, gateway: str, numbers: set[int], error: BatonError) -> None:
        """End the streams whose tokens did not go out: what follows would have a gap."""
        for stream in list(self._live.values()):
            if stream.gateway == gateway and stream.request.stream in numbers:
                self.leave(stream)
                stream.close(error if isinstance(error, TooLarge) else WorkerLost(f"a frame was not sent: {error}"))
