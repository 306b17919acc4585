"""Chat templates, rendered as Hugging Face renders them, in a sandbox.

The template comes with the model, the messages from anyone: the sandbox forbids attributes and mutation, the size of
what is rendered is bounded by the body's limit. Pure apart from `strftime_now`, which templates may call.
"""

import json
from datetime import datetime
from typing import Any, Final

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.errors import BadRequest

PLAIN: Final = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ 'assistant:' }}"
"""For a model without a template of its own."""


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}` marks training targets; here its body is simply rendered."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        """Keep the block's body as it is."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


_BROKEN: Final = (
    jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError
)  # fmt: skip
"""What comes of a value that is not of the kind that a template, or one of jinja's filters, takes it for."""


class _TemplateRefused(Exception):
    """Raised by a template that cannot render these messages."""


def _raise(message: str) -> None:
    raise _TemplateRefused(message)


def _to_json(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002  templates pass these by place, as Hugging Face has them
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    # jinja's own filter escapes for HTML
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


class ChatTemplate:
    """One model's template, compiled once. Raises jinja2.TemplateSyntaxError when the model's template is broken."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, loopcontrols],
            autoescape=False,
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _strftime_now
        self._template = environment.from_string(source or PLAIN)
        self._variables = meta.find_undeclared_variables(environment.parse(source or PLAIN))
        self._tokens = {"bos_token": bos, "eos_token": eos}

    def knows(self, variable: str) -> bool:
        """Whether the template looks at a variable."""
        return variable in self._variables

    def render(
        self, messages: list[dict[str, Any]], extra: dict[str, Any], *, tools: list[dict[str, Any]] | None = None
    ) -> str:
        """Render the prompt up to where the assistant speaks. Raises BadRequest with the template's own complaint."""
        given = {"add_generation_prompt": True, **extra}
        try:
            return self._template.render(messages=messages, tools=tools or None, **given, **self._tokens)
        except _TemplateRefused as error:
            raise BadRequest(f"the model's chat template refuses these messages: {error}", "messages") from None
        except _BROKEN as error:
            raise BadRequest(f"the model's chat template cannot render these messages: {error}", "messages") from None


def marked(words: str, mark: str) -> str:
    """Mark where words end; space behind them is kept apart, since many templates trim it."""
    kept = len(words.rstrip())
    return f"{words[:kept]}{mark}{words[kept:]}"


def up_to_mark(rendered: str, words: str, mark: str) -> str:
    """Cut a conversation behind its last words, whose end is marked, so that the model goes on with them.

    Raises BadRequest where the template has changed them.
    """
    before, _, after = rendered.rpartition(mark)
    if not before.endswith(words.strip()):
        param = "continue_final_message"
        raise BadRequest("the model's chat template changes the last message, so that it cannot go on", param)
    space = words[len(words.rstrip()) :]
    return before + space if after.startswith(space) else before
