"""How one payload is divided over several TCP connections, where one core cannot fill the link.

Pure. Every part is a run of whole chunks, the last one's end excepted, and has a checksum of its own. The receiver says
in its endpoint how many connections it takes, so that one which knows nothing of parts is never sent any.
"""

import os
from typing import Final

from shared.config import KvSettings
from shared.kv.layout import CHUNK_BYTES

LEAST_BYTES: Final = 8 << 20
"""Of a part: below it, a further connection's exchange costs about what it saves."""
MOST: Final = 16
_CORES_EACH: Final = 4  # a connection keeps one busy at either end, and engines want the others
_MOST_UNASKED: Final = 4


def connections(settings: KvSettings) -> int:
    """Over how many one buffer may go, at our end."""
    return settings.tcp_connections or max(1, min(_MOST_UNASKED, (os.cpu_count() or 1) // _CORES_EACH))


def number(nbytes: int, ours: int, theirs: int) -> int:
    """Into how many parts a payload of so many bytes goes."""
    return max(1, min(ours, theirs, nbytes // LEAST_BYTES))


def part(nbytes: int, parts: int, index: int) -> tuple[int, int]:
    """(start, stop) of a part; all of them cover the payload once."""
    chunks = -(-nbytes // CHUNK_BYTES)
    start, stop = (chunks * place // parts * CHUNK_BYTES for place in (index, index + 1))
    return min(start, nbytes), min(stop, nbytes)
