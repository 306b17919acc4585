"""A scheduler's plan as a note, and the plan made of it elsewhere: equal in all that laying out a step looks at.

Pure. A sequence's tokens and blocks only grow, so whoever was in the step before is told what has come since; nothing
is kept of a sequence that misses a step, and the next time it is told anew: no end of a sequence has to be told.
"""

from shared.engine import Sequence
from shared.engine.torch_engine.ranks.notes import Forward, Known, Piece
from shared.engine.torch_engine.scheduler import Chunk, Plan
from shared.engine.torch_engine.sequence import Run
from shared.messages import Sampling, Stopping


class Telling:
    """The leader's side: what the followers know."""

    def __init__(self) -> None:
        self._told: dict[Run, tuple[int, int, int]] = {}  # its number, and how many tokens and blocks are known
        self._number = 0

    def note(self, plan: Plan) -> Forward:
        """What to tell of the plan."""
        before, self._told = self._told, {}
        return Forward(
            [self._known(run, before) for run in plan.decodes],
            [Piece(self._known(chunk.run, before), chunk.start, chunk.stop) for chunk in plan.chunks],
            plan.fresh,
        )

    def _known(self, run: Run, before: dict[Run, tuple[int, int, int]]) -> Known:
        number, tokens, blocks = before.get(run, (0, 0, 0))
        if not number:
            number = self._number = self._number + 1
        self._told[run] = (number, len(run.tokens), len(run.blocks))
        return Known(number, run.computed, run.tokens[tokens:], run.blocks[blocks:])


class Hearing:
    """A follower's side: the sequences of the last step."""

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}

    def plan(self, note: Forward) -> Plan:
        """The plan that the note tells of."""
        before, self._runs = self._runs, {}
        return Plan(
            [self._run(known, before) for known in note.decodes],
            [Chunk(self._run(piece.run, before), piece.start, piece.stop) for piece in note.chunks],
            note.fresh,
        )

    def _run(self, known: Known, before: dict[int, Run]) -> Run:
        run = before.get(known.number)
        if run is None:
            sequence = Sequence(str(known.number), known.tokens, len(known.tokens), Sampling(), Stopping(max_tokens=1))
            run = Run(sequence)
        else:
            run.tokens += known.tokens
        run.blocks += known.blocks
        run.computed = known.computed
        self._runs[known.number] = run
        return run
