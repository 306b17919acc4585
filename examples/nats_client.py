"""Stream an answer over NATS, without HTTP: `python examples/nats_client.py "Why is the sky blue?"`."""

import asyncio
import json
import os
import sys
from pathlib import Path

import msgpack
import nats

STATE = Path(os.environ.get("BATON_STATE_DIR") or "~/.local/state/baton").expanduser()


async def main(prompt: str) -> None:
    """Ask, and print the pieces of the answer as they come."""
    url = os.environ.get("NATS_URL") or json.loads((STATE / "cluster.json").read_text())["nats"]
    client = await nats.connect(url)
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    asked = {"messages": [{"role": "user", "content": prompt}], "stream": True, "max_tokens": 200}
    request = {"v": 1, "api_key": os.environ.get("BATON_API_KEY", ""), **asked}
    await client.publish("baton.chat.requests", msgpack.packb(request), reply=inbox)
    piece: dict[str, object] = {}
    while not ("done" in piece or "error" in piece):
        piece = msgpack.unpackb((await answers.next_msg(timeout=60)).data)
        print(piece.get("text") or piece.get("error") or "", end="", flush=True)
    await client.close()
    print()


asyncio.run(main(" ".join(sys.argv[1:]) or "Why is the sky blue?"))
