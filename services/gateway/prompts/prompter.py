"""From words to tokens: chat template, tokenizer, the model's context.

Long texts are rendered and tokenised in a thread, so that no stream waits for somebody else's prompt. Chooses nothing
and knows no worker.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from services.gateway.api.chat import ChatMessage
from services.gateway.api.tokens import TokenizeRequest
from services.gateway.prompts.quoting import Quoting, draw_mark
from services.gateway.prompts.template import ChatTemplate, marked, up_to_mark
from services.gateway.prompts.turns import Turn, in_words, turns_of
from services.gateway.tools.formats import choose
from shared.errors import BadRequest, ContextTooLong
from shared.messages import MAX_TOKENS_BYTES
from shared.models import ModelSpec
from shared.text import Tokenizer

T = TypeVar("T")

OFF_LOOP_CHARS: Final = 2_000
"""Texts above this, about a millisecond of work, are tokenised in a thread."""
MAX_CHARS_PER_TOKEN: Final = 128
"""No vocabulary in use has longer tokens, so a longer text cannot fit and need not be tokenised to know it."""


class Prompter:
    """Makes the tokens of one scenario's prompts. `close` ends its threads."""

    def __init__(
        self, spec: ModelSpec, tokenizer: Tokenizer, threads: ThreadPoolExecutor, *, tool_format: str = "auto"
    ) -> None:
        self.context = min(spec.context, MAX_TOKENS_BYTES // 4)
        self.spec = spec
        self.tokenizer = tokenizer
        self._threads = threads
        self._quoting = Quoting(tokenizer.special)
        bos = "" if spec.bos_id is None else tokenizer.piece(spec.bos_id)[0]
        eos = tokenizer.piece(min(spec.eos_ids))[0] if spec.eos_ids else ""
        self.template = ChatTemplate(spec.chat_template, bos=bos, eos=eos)
        # some models have a second template, for conversations with functions
        self._tools = ChatTemplate(spec.tool_template, bos=bos, eos=eos) if spec.tool_template else self.template
        self.form = choose(tool_format, spec.tool_template or spec.chat_template, self._special)

    async def chat(
        self,
        messages: list[ChatMessage],
        extra: dict[str, Any] | None,
        *,
        tools: list[dict[str, Any]] | None = None,
        continued: bool = False,
    ) -> list[int]:
        """Tokens of a conversation after the chat template. Raises BadRequest, ContextTooLong.

        `continued`: the model goes on with the last message.
        """
        length = sum(message.length for message in messages) + len(str(tools or ""))
        self._refuse_hopeless(length, "messages")

        def work() -> list[int]:
            text = self._rendered(messages, extra or {}, tools or [], continued=continued)
            # the template writes the special tokens itself
            return [token for part in self._quoting.parts(text) for token in self.tokenizer.encode(part, special=False)]

        return self._usable(await self.run(work, length + len(str(extra or ""))), "messages")

    def _rendered(
        self, messages: list[ChatMessage], extra: dict[str, Any], tools: list[dict[str, Any]], *, continued: bool
    ) -> str:
        quoting = self._quoting
        tools, extra = quoting.value(tools), quoting.value(extra)
        template, turns = self._turns(messages, tools)
        if not continued:
            return template.render(turns, extra, tools=tools)
        end, words = draw_mark(), quoting.text(messages[-1].text)
        turns[-1]["content"] = marked(turns[-1]["content"], end)
        return up_to_mark(template.render(turns, extra, tools=tools), words, end)

    def _turns(self, messages: list[ChatMessage], tools: list[dict[str, Any]]) -> tuple[ChatTemplate, list[Turn]]:
        """Choose the template, and say the conversation as it reads it."""
        quoting = self._quoting
        plain = not tools and not any(message.tool_calls or message.role == "tool" for message in messages)
        if plain or self._tools.knows("tools"):
            return self.template if plain else self._tools, quoting.value(turns_of(messages, self.form))
        return self.template, in_words([quoting.message(message) for message in messages], self.form, tools)

    def _special(self, text: str) -> int | None:
        """The id of a special token, whose text streams do not show."""
        tokens = self.tokenizer.encode(text, special=False)
        return tokens[0] if len(tokens) == 1 and not self.tokenizer.shown(tokens[0]) else None

    async def text(self, prompt: str | list[int], *, special: bool = True) -> list[int]:
        """Tokens of a completion's prompt, which may be tokens already. Raises BadRequest, ContextTooLong."""
        if isinstance(prompt, list):
            return self.tokens(prompt, "prompt")
        self._refuse_hopeless(len(prompt), "prompt")
        tokens = await self.run(lambda: self.tokenizer.encode(prompt, special=special), len(prompt))
        return self._usable(tokens, "prompt")

    async def count(self, asked: TokenizeRequest) -> list[int]:
        """Tokens of a prompt or of a conversation, however long, as far as they can fit. Raises BadRequest."""
        if (asked.prompt is None) == (asked.messages is None):
            raise BadRequest("give either prompt or messages", "prompt")
        if asked.messages is not None:
            extra = dict(asked.chat_template_kwargs or {})
            if asked.add_generation_prompt is not None:
                extra["add_generation_prompt"] = asked.add_generation_prompt
            return await self.chat(asked.messages, extra, tools=[tool.described() for tool in asked.tools or ()])
        return await self.text(asked.prompt or "", special=asked.add_special_tokens is not False)

    async def words(self, tokens: list[int], param: str = "tokens") -> str:
        """Text of tokens. Raises BadRequest for one that is not in the vocabulary."""
        self.tokens(tokens, param)
        return await self.run(lambda: self.tokenizer.decode(tokens), len(tokens))

    def tokens(self, tokens: list[int], param: str) -> list[int]:
        """Check that a client's tokens exist in the vocabulary."""
        if tokens and max(tokens) >= self.tokenizer.vocabulary:
            limit = self.tokenizer.vocabulary
            raise BadRequest(f"token {max(tokens)} is not in the vocabulary of {limit} tokens", param)
        return self._usable(tokens, param)

    def room(self, prompt_tokens: int, wanted: int | None, param: str) -> int:
        """Tokens to generate at most: what was asked for, else what the context leaves. Raises ContextTooLong."""
        left = self.context - prompt_tokens
        if wanted is None and left > 0:
            return left
        if wanted is None or wanted > left:
            asked = f"{prompt_tokens} in the prompt, {wanted or 1} to generate"
            raise ContextTooLong(
                f"This model's maximum context length is {self.context} tokens. However, you requested "
                f"{prompt_tokens + (wanted or 1)} tokens ({asked}). Please reduce either.",
                "max_tokens" if left > 0 else param,
            )
        return wanted

    async def run(self, work: Callable[[], T], length: int) -> T:
        """Do work on a text: at once where it is short, else in a thread."""
        return work() if length <= OFF_LOOP_CHARS else await self.aside(work)

    async def aside(self, work: Callable[[], T]) -> T:
        """Do work of which nobody knows how long it takes in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _refuse_hopeless(self, chars: int, param: str) -> None:
        if chars > self.context * MAX_CHARS_PER_TOKEN:
            raise ContextTooLong(
                f"This model's maximum context length is {self.context} tokens, which {chars} characters exceed.", param
            )

    def _usable(self, tokens: list[int], param: str) -> list[int]:
        if not tokens:
            raise BadRequest("the prompt is empty", param)
        return tokens
