"""A conversation, and how a model is to answer it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from orchestration.messages.tools import ToolCall
from orchestration.wire import Wire

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
LogitBias = Annotated[float, Field(ge=-100, le=100)]


class ChatMessage(Wire):
    """One turn of a conversation. Content is text; other kinds of content are refused at the gateway.

    An assistant may call tools; a message of role `tool` answers the call of that id.
    """

    role: Literal["system", "user", "assistant", "tool"]
    tool_calls: tuple[ToolCall, ...] = ()
    content: str
    name: str | None = None
    tool_call_id: str | None = None
    reasoning: str = ""
    """The assistant's reasoning before its answer, if the caller sends it back; for upstreams."""


class Sampling(Wire):
    """How the next token is chosen. A temperature of 0 is greedy and ignores top_p and top_k.

    `None` means "not set": the role's or the backend's default applies.
    """

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    max_tokens: int | None = Field(default=None, ge=1)
    stop: tuple[str, ...] = ()
    repetition_penalty: float | None = Field(default=None, gt=0, le=4)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Tokens are excluded whose probability is below this share of the most likely token's."""
    min_tokens: int | None = Field(default=None, ge=0)
    """Tokens before the answer may end."""
    ignore_eos: bool | None = None
    """Whether the answer goes on where the model would end it."""
    stop_token_ids: tuple[TokenId, ...] | None = Field(default=None, max_length=1_024)
    """Tokens that end the answer, as the model's own ends do."""
    logit_bias: dict[TokenId, LogitBias] | None = Field(default=None, max_length=1_024)
    """Added to the logits of these tokens."""
    truncate_prompt_tokens: int | None = Field(default=None, ge=1)
    """Maximum tokens of the prompt; the last ones are kept."""

    def over(self, defaults: Sampling) -> Sampling:
        """These values where they are set, `defaults` elsewhere."""
        own = {name: getattr(self, name) for name in self.model_fields_set}
        return defaults.model_copy(update={name: value for name, value in own.items() if value is not None})


class GuidedDecoding(Wire):
    """What the text must conform to, exactly one of: a JSON schema, a regular expression, one of the texts of
    `choice`, or a grammar (Lark's form, or llama.cpp's GBNF).

    `json_schema` of `{}` means any JSON value ("json_object" of the OpenAI API uses `{"type": "object"}`).
    `name`, `description` and `strict` are what the caller gave beside the schema, for upstreams; without a
    `name` the schema is Orchestra's own. `field` is the field of the caller's body, '' for Orchestra's own.
    """

    json_schema: dict[str, Any] | None = None
    regex: str | None = None
    choice: tuple[str, ...] | None = None
    grammar: str | None = None
    field: str = ""
    name: str = ""
    description: str = ""
    strict: bool | None = None
