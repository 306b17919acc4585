"""What a chat asks beside its words: variables of the template, calls of functions, a form of the text.

Owns which of these go together, and the refusal of what this model's template has no place for.
"""

import json
from dataclasses import dataclass
from typing import Any

from services.gateway.api.chat import ChatRequest
from services.gateway.api.parameters import Parameters
from services.gateway.api.structure import MOST_BYTES, only_one, settled
from services.gateway.api.tools import Allowed, allowed
from services.gateway.prompts.prompter import Prompter
from services.gateway.prompts.template import ChatTemplate
from services.gateway.tools.formats import ToolFormat
from services.gateway.tools.grammar import Function, calls_only, calls_or_text
from shared.errors import BadRequest
from shared.messages import Constraint
from shared.text.grammar import check


@dataclass(frozen=True, slots=True)
class Calling:
    """How calls are to be found in the text of an answer."""

    form: ToolFormat
    names: frozenset[str]
    single: bool


def calling_of(request: ChatRequest, form: ToolFormat) -> Calling | None:
    """What to look for in the answer; None where no function may be called."""
    tools = _allowed(request).tools
    if not tools:
        return None
    return Calling(form, frozenset(tool.function.name for tool in tools), single=request.parallel_tool_calls is False)


def described(request: ChatRequest) -> list[dict[str, Any]]:
    """The functions that the model is told of."""
    return [tool.described() for tool in _allowed(request).tools]


def variables(request: ChatRequest, template: ChatTemplate) -> dict[str, Any]:
    """Variables for the chat template. Raises BadRequest for a wish that it has no place for."""
    made = dict(request.chat_template_kwargs or {})
    if request.add_generation_prompt is not None or request.continue_final_message:
        made["add_generation_prompt"] = bool(request.add_generation_prompt) and not request.continue_final_message
    if request.reasoning_effort is not None:
        made |= _effort(request.reasoning_effort, template)
    if request.verbosity is not None and template.knows("verbosity"):
        made["verbosity"] = request.verbosity
    elif request.verbosity not in (None, "medium"):  # which is how everyone else speaks
        raise BadRequest("Unsupported parameter: 'verbosity' is not supported by this model", "verbosity")
    return made


def _effort(effort: str, template: ChatTemplate) -> dict[str, Any]:
    if template.knows("reasoning_effort"):
        return {"reasoning_effort": effort}
    if template.knows("enable_thinking"):
        return {"enable_thinking": effort not in ("none", "minimal")}
    if effort == "none":  # a model that does not reason does just that
        return {}
    raise BadRequest("Unsupported parameter: 'reasoning_effort' is not supported by this model", "reasoning_effort")


async def constraint_of(request: Parameters, prompter: Prompter) -> Constraint | None:
    """The language that the answer must belong to. Raises BadRequest."""
    demanded = only_one(request.demands())
    made = None
    if demanded is not None:
        made = await prompter.aside(lambda: settled(demanded))  # a short expression too can take long
    chosen = _allowed(request) if isinstance(request, ChatRequest) else None
    if chosen is None or not chosen.tools or not isinstance(request, ChatRequest):
        return made
    single = request.parallel_tool_calls is False
    if not (chosen.must or single or made is not None or any(tool.function.strict for tool in chosen.tools)):
        return None
    if demanded is not None and made is not None and made.kind != "json_schema" and not chosen.must:
        raise BadRequest(f"{demanded.param} cannot be combined with tools", demanded.param)
    return await prompter.aside(lambda: _of_calls(chosen, prompter.form, made, single=single))


def _of_calls(chosen: Allowed, form: ToolFormat, made: Constraint | None, *, single: bool) -> Constraint:
    _bound(*(json.dumps(tool.function.parameters, ensure_ascii=False) for tool in chosen.tools))  # reading takes time
    functions = [
        Function(
            tool.function.name,
            tool.function.parameters or {"properties": {}, "additionalProperties": False},
            strict=bool(tool.function.strict),
            param=f"tools[{place}].function.parameters",
        )
        for tool, place in zip(chosen.tools, chosen.places, strict=True)
    ]
    if chosen.must:
        constraint = calls_only(form, functions, single=single)
    else:
        constraint = calls_or_text(form, functions, single=single, schema=made.text if made is not None else "")
    _bound(constraint.text)
    try:
        check(constraint)
    except BadRequest as error:
        raise BadRequest(f"calls of these functions cannot be demanded: {error}", "tools") from None
    return constraint


def _bound(*texts: str) -> None:
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    if size > MOST_BYTES:
        raise BadRequest(f"the schemas of the functions have {size} bytes; {MOST_BYTES} are allowed", "tools")


def _allowed(request: ChatRequest) -> Allowed:
    return allowed(request.tools or [], request.tool_choice)
