"""Which cores compute: the calling thread, and the threads of torch's pool that it starts later, are held on them.

Owns nothing and imports no torch. Call `hold` in the thread that computes, before it does: the threads of a pool
inherit their cores from the one that starts them. The event loop's thread stays free, and goes where there is room.
"""

import os
import re
from typing import Final

from shared.errors import ConfigError

_PART: Final = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")


def cores(text: str) -> frozenset[int]:
    """The cores in a list like "0-7,16", which is how the kernel writes them. Raises ValueError."""
    result: set[int] = set()
    for part in text.replace(" ", "").split(",") if text.strip() else ():
        found = _PART.fullmatch(part)
        if found is None or int(found[2] or found[1]) < int(found[1]):
            raise ValueError(part)
        result.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return frozenset(result)


def no_cores(text: str) -> str:
    """What is wrong with such a list, as the end of a sentence, or nothing."""
    try:
        cores(text)
    except ValueError as error:
        return f'takes a list of cores like "0-7,16", and {str(error)!r} is not part of one'
    return ""


def hold(text: str) -> int:
    """Hold the calling thread on those cores; how many they are, 0 where none is named and nothing is held.

    Raises ConfigError where this machine does not give them.
    """
    chosen = cores(text)
    if not chosen:
        return 0
    try:
        os.sched_setaffinity(0, chosen)
        missing = chosen - os.sched_getaffinity(0)  # the kernel leaves out, without a word, what is not there
    except AttributeError as error:
        raise ConfigError(["engine_options.cpus: this system holds no thread on cores"]) from error
    except OSError:
        missing = chosen
    if missing:
        names = ", ".join(map(str, sorted(missing)))
        raise ConfigError([f"engine_options.cpus: of {text!r} this process may not use {names}"])
    return len(chosen)
