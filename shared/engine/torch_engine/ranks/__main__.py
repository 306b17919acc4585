"""The process of a follower: `python -m shared.engine.torch_engine.ranks <descriptor of its line>`."""

import logging
import os
import signal
import socket
import sys

from shared.engine.torch_engine.ranks.follower import follow
from shared.engine.torch_engine.ranks.line import Line, LineEnded
from shared.engine.torch_engine.ranks.notes import Failed, pack
from shared.errors import BatonError

log = logging.getLogger(__name__)


def main() -> int:
    """Follow until told to end."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group: the leader ends first what it has begun
        signal.signal(number, signal.SIG_IGN)
    line = Line(socket.socket(fileno=int(sys.argv[1])), "the leader")
    try:
        follow(line)
    except LineEnded:
        return 1
    except Exception as error:
        if not isinstance(error, BatonError):
            log.exception("this rank died")
        line.send(pack(Failed(str(error) if isinstance(error, BatonError) else repr(error))))
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    os._exit(status)  # the interpreter's own end, with all of torch, takes a second, and somebody waits
