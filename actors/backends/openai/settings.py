"""What one OpenAI-compatible upstream is, and how long and how much it may take."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from actors.backends.upstream_names import UpstreamNames

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(ge=1024, le=2**31)]


class OpenAISettings(BaseModel):
    """Settings of an `OpenAIBackend`. The key itself is no setting: `api_key_env` names its variable.

    `base_url` is what the OpenAI clients call so: `http://host:8000/v1`. Without a path, `/v1` is meant.
    `models` maps served names to upstream names; empty means whatever the upstream lists at start.
    A model is taken for an embedding model if `embedding_models` holds its served name or the name
    says so (`embed`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base_url: str
    api_key_env: str | None = Field(default=None, min_length=1)
    models: UpstreamNames = {}
    embedding_models: frozenset[str] = frozenset()
    slots: int = Field(default=32, ge=1, le=4096)

    connect_timeout_s: Seconds = 5.0
    """For a connection, the wait for a free one of the pool included."""
    first_byte_timeout_s: Seconds = 120.0
    """From the request to the first byte of its answer, and between bytes until text flows: prefill of a long
    prompt counts here."""
    chunk_timeout_s: Seconds | None = None
    """Without any byte once text flows; comments (keep-alives) are bytes too. None leaves it to the node's
    `stall_s`."""
    max_backoff_s: Seconds = 300.0
    """A Retry-After beyond this holds generations off only so long."""

    max_line_bytes: Bytes = 1 << 20
    """Of one event of a stream."""
    max_answer_bytes: Bytes = 64 << 20
    """Of an answer that is not streamed: embeddings, the list of models."""
    embedding_batch: int = Field(default=256, ge=1, le=2048)
    """Inputs in one upstream request."""

    continues: Literal["auto", "no", "trailing_message", "continue_final_message"] = "auto"
    """How this upstream takes up a chat that another node has begun: from an assistant's message at the end
    (llama.cpp), or told so by that field (vLLM, SGLang). `auto` goes by the `owned_by` of its list of models.
    One that cannot writes the answer again, and what was sent already is skipped."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    repetition_penalty_field: str = "repetition_penalty"
    """vLLM's name; llama.cpp calls it `repeat_penalty`."""
    regex_field: str | None = None
    """Where this upstream takes a regular expression, if it does: `guided_regex`, or dotted as in
    `structured_outputs.regex` (vLLM)."""
    strict_json_schema: bool = True
    completion_schema_field: str | None = None
    """Where this upstream's `/completions` takes a JSON schema, if it does: `json_schema` (llama.cpp, which
    silently ignores `response_format` there) or `response_format` (vLLM). Chats need no setting."""

    @field_validator("base_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise ValueError("base_url must be http://HOST[:PORT][/PATH] or https://…")
        if url.username is not None or url.password is not None:
            raise ValueError("base_url must not hold a user or password; name a key with api_key_env")
        if url.query or url.fragment:
            raise ValueError("base_url must not hold a query or fragment")
        return urlunsplit((url.scheme, url.netloc, url.path.rstrip("/") or "/v1", "", ""))

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return urlsplit(self.base_url).netloc

    def is_embedding(self, served: str) -> bool:
        return served in self.embedding_models or "embed" in served.lower()
