"""The relay as a model: one gateway, its workers and the network between them, with a bounded number of faults.

Any message may come at any time. A fault loses or repeats one, kills, freezes or doubles a worker, lets a timeout fire
though nothing is wrong, or spoils a push. What happens without a fault: whatever is in flight arrives, workers work,
the frozen thaw, the dead are started again, and timeouts fire where indeed nothing comes any more. Which of all that
may happen in a state is said in `chances`; here is what then happens.
"""

from typing import Any

from shared.errors import Code
from shared.messages import Group, Member, ScenarioMap, State
from tests.model.chances import Chances
from tests.model.explorer import Name
from tests.model.gateway import Gateway
from tests.model.workers import Process
from tests.model.world import FAULTS, Life, Message, Scene, Size, World


class RelayModel(Chances):
    """See the module."""

    def __init__(self, size: Size | None = None, kind: type[Gateway] = Gateway) -> None:
        super().__init__(size or Size())
        self._kind = kind

    def start(self) -> World:
        names = (*self.size.prefills, *self.size.decodes)
        fresh = [Process.start(name, (1, 1)) for name in names]
        self._like_new = {process.name: self.processes.enter(process) for process in fresh}
        prefills, decodes = ([Member(one, (1, 1)) for one in role] for role in (self.size.prefills, self.size.decodes))
        scenario_map = ScenarioMap("chat", 1, (1, 1), [Group("main", prefills, decodes)])
        reference = tuple(range(101, 101 + self.size.tokens))
        machine = self._kind(reference, scenario_map, [process.status() for process in fresh])
        said = machine.tell("arrive")
        lives = tuple((name, Life(number)) for name, number in self._like_new.items())
        scene = Scene(World(self.gateways.enter(machine), lives, (), (), self.size.faults, 1))
        self._send(scene, said)
        return scene.world()

    def done(self, state: World) -> bool:
        if not self._seen(state).ended or state.net:
            return False
        lives = [life for _, life in state.lives if life is not None] + list(state.zombies)
        return not any(life.frozen or self._glance(life).used or self._glance(life).jobs for life in lives)

    def play(self, state: World, name: Name) -> World:
        scene = Scene(state)
        kind, *rest = name
        scene.faults -= kind in FAULTS
        if kind == "impatient":
            kind, *rest = rest
        match kind:
            case "deliver" | "lose" | "repeat":
                message = tuple(rest)
                if kind != "repeat":
                    scene.net.remove(message)
                if kind != "lose":
                    self._carry(scene, message)
            case "step" | "push" | "word lost" | "push lost":
                self._do_work(scene, kind, *rest)
            case "time_out" | "stall" | "give_up_gap" | "nobody_there":
                self._tell(scene, kind, *rest)
            case "client leaves":
                self._tell(scene, "leave")
            case _:
                self._change_life(scene, kind, *rest)
        self._say_what_is_stale(scene)
        return scene.world()

    def _tell(self, scene: Scene, what: str, *arguments: Any) -> None:
        said, scene.gateway = self.gateways.call(scene.gateway, "tell", what, *arguments)
        self._send(scene, said)

    def _call(self, scene: Scene, name: str, method: str, *arguments: Any) -> Any:
        life = scene.lives[name]
        assert life is not None
        result, process = self.processes.call(life.process, method, *arguments)
        scene.lives[name] = Life(process, life.frozen)
        return result

    def _send(self, scene: Scene, said: tuple[Message, ...]) -> None:
        for message in said:
            if message[0] == "offer":
                scene.net.append(message)
            else:
                self._broadcast(scene, message[1])

    def _broadcast(self, scene: Scene, attempt: int) -> None:
        """A cancellation goes to all; where it changes nothing when it comes, it comes at once."""
        lives = [life for life in (*scene.lives.values(), *scene.zombies) if life is not None]
        handing = any(not self._glance(life).is_decode and self._glance(life).jobs for life in lives)
        for name, life in list(scene.lives.items()):
            if life is None:
                continue
            process = self._glance(life)
            coming = any(message[:2] == ("offer", name) for message in scene.net)
            if life.frozen or process.jobs or coming or (process.is_decode and handing):
                scene.net.append(("cancel", name, attempt))
            else:
                self._call(scene, name, "cancelled", attempt)

    def _say_what_is_stale(self, scene: Scene) -> None:
        """Let the gateway hear at once what comes too late for it: since it changes nothing, its time means nothing."""
        for message in list(scene.net):
            seen = self._seen(scene)
            if message[0] == "answer":
                stale = message[3] not in dict(seen.pending)
            elif message[0] in ("frame", "handed"):
                stale = message[3] < seen.last_offer
            else:
                stale = False
            if stale or (seen.ended and message[0] not in ("offer", "cancel")):
                scene.net.remove(message)
                self._carry(scene, message)

    def _carry(self, scene: Scene, message: Message) -> None:
        kind, *rest = message
        if kind == "status":
            self._tell(scene, "hear_status", Process.start(*rest).status(State.STARTING))
        elif kind not in ("offer", "cancel"):
            self._tell(scene, f"hear_{kind}", *rest)
        elif scene.lives[rest[0]] is None:
            if kind == "offer" and rest[1] in dict(self._seen(scene).pending):
                self._tell(scene, "time_out", rest[1])  # nobody listens
        elif kind == "cancel":
            self._call(scene, rest[0], "cancelled", rest[1])
        else:
            scene.net.append(self._call(scene, rest[0], "offered", *rest[1:]))

    def _do_work(self, scene: Scene, kind: str, place: int, _name: str, attempt: int, *to: str) -> None:
        names = [name for name, life in scene.lives.items() if life is not None]
        lives = [scene.lives[name] for name in names] + scene.zombies
        life = lives[place]
        assert life is not None
        process = self._glance(life)
        if kind == "step":
            method, arguments = "step", (attempt, self.size.tokens)
        else:
            method, arguments = "drop", (attempt,)
        said = ("frame", process.name, process.epoch, attempt, -1, "failed")
        if kind in ("push", "word lost"):
            index = next(index for held, index, _ in process.jobs if held == attempt)
            why_not = self._call(scene, to[0], "receive", attempt, index)
            if why_not is Code.OVERLOADED:
                return  # it keeps the buffer and asks again
            if why_not is None and kind == "push":
                decode = scene.lives[to[0]]
                assert decode is not None
                said = ("handed", to[0], self._glance(decode).epoch, attempt)
        result, after = self.processes.call(life.process, method, *arguments)
        if place < len(names):
            scene.lives[names[place]] = Life(after, life.frozen)
        else:
            scene.zombies[place - len(names)] = Life(after, life.frozen)
        scene.net.append(result if kind == "step" else said)

    def _change_life(self, scene: Scene, kind: str, which: Any) -> None:
        life = scene.zombies[which] if isinstance(which, int) else scene.lives[which]
        match kind:
            case "crash":
                scene.lives[which] = None
            case "freeze" | "thaw":
                assert life is not None
                scene.lives[which] = Life(life.process, kind == "freeze")
            case "beat":
                self._tell(scene, "beat", self._call(scene, which, "status"))
            case "wake":
                assert life is not None
                scene.zombies[which] = Life(life.process)
            case "end":
                del scene.zombies[which]
            case "start" | "second life":
                if life is not None:
                    scene.zombies.append(Life(life.process, frozen=True))
                scene.epochs += 1
                fresh = Process.start(which, (1, scene.epochs))
                scene.lives[which] = Life(self.processes.enter(fresh))
                scene.net.append(("status", which, fresh.epoch))
            case _:
                raise AssertionError(kind)
