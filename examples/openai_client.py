"""Stream an answer with the OpenAI client: `pip install openai`, then `python examples/openai_client.py "Hello!"`."""

import os
import sys

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),  # the local cluster asks for no key
)
stream = client.chat.completions.create(
    model="chat",  # a scenario's name
    messages=[{"role": "user", "content": " ".join(sys.argv[1:]) or "Why is the sky blue?"}],
    max_tokens=200,
    stream=True,
)
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
print()
