"""How a chat is put to a model that was never taught to chat: as the transcript of one.

A pretrained model continues text. Three short exchanges show it the form, so that it answers instead of asking on, and
the name of the other speaker ends its turn.
"""

from typing import Final

TEMPLATE: Final = """\
{{ bos_token }}
{%- if messages and messages[0].role == 'system' %}
{{- messages[0].content | trim }}
{%- else %}
{{- 'The following is a conversation between a user and a helpful assistant. The assistant answers each question \
clearly, in complete sentences.' }}
{%- endif %}
{{- '\\n\\n' }}
{{- 'User: Hi! Can you help me?\\nAssistant: Of course. Ask me anything you like.\\n' }}
{{- 'User: What do bees make?\\nAssistant: Bees make honey. They collect nectar from flowers and store it in their \
hive.\\n' }}
{{- 'User: Tell me something about the moon.\\nAssistant: The moon travels around the Earth about once a month. Its \
light is sunlight that it reflects.\\n' }}
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{{- 'Assistant: ' ~ message.content | trim ~ '\\n' }}
{%- elif message.role != 'system' or not loop.first %}
{{- 'User: ' ~ message.content | trim ~ '\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- 'Assistant:' }}
{%- endif %}
"""

DEFAULT_STOP: Final = ["\nUser:", "\nAssistant:"]

SAMPLING: Final = {"temperature": 0.7, "top_k": 64, "top_p": 0.95}
"""For what a client leaves open: a small model at temperature 1 wanders off."""
