"""A moderation service that Baton can ask.

Run `python examples/moderator.py 9000`, and write into Baton's configuration:

    [moderation.judge]
    kind = "http"
    url = "http://127.0.0.1:9000/v1/moderations"

    [scenario.chat]
    moderate_prompt = ["judge"]
    moderate_answer = ["judge"]

Replace `judge` by whatever decides for you: a classifier, another model, a call to somebody else's API.
"""

import sys

from aiohttp import web

MAX_BODY_BYTES = 16 << 20


def judge(text: str) -> dict[str, bool]:
    """Say which categories a text falls into."""
    words = set(text.lower().split())
    return {"violence": bool(words & {"bomb", "grenade"}), "rudeness": "shut up" in text.lower()}


async def moderate(request: web.Request) -> web.Response:
    """Answer POST /v1/moderations."""
    asked = await request.json()
    texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
    judged = [judge(text) for text in texts]
    results = [{"flagged": any(categories.values()), "categories": categories} for categories in judged]
    return web.json_response({"id": "modr-1", "model": asked.get("model", "example"), "results": results})


if __name__ == "__main__":
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_post("/v1/moderations", moderate)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 9000)
