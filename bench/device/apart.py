"""Work in a process of its own, whose end frees all that it had of the device, however it went."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


def apart(limit_s: float, work: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401  whatever it returns
    """What the work returns. Raises RuntimeError where it fails or takes longer."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_do, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    try:
        if not ours.poll(limit_s):
            raise RuntimeError(f"not done after {limit_s:g} s")
        failure, found = ours.recv()
    except EOFError as error:
        raise RuntimeError("its process died") from error
    finally:
        process.join(10.0)
        process.kill()
        process.join()
    if failure:
        raise RuntimeError(failure)
    return found


def _do(answer: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        answer.send(("", work(*arguments)))
    except Exception as error:  # noqa: BLE001  whoever waits is told
        answer.send((repr(error), None))
