"""Settings of an OpenAI-compatible upstream."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from actors.backends.upstream_names import UpstreamNames

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(ge=1024, le=2**31)]


class OpenAISettings(BaseModel):
    """Settings of an `OpenAIBackend`. `api_key_env` names the environment variable with the API key.

    `base_url` as in OpenAI clients: `http://host:8000/v1`; the default path is `/v1`. `models` maps served
    names to upstream names; empty: all models that the upstream lists at the start. Embedding models are
    those in `embedding_models` (served names), and those with `embed` in their name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base_url: str
    api_key_env: str | None = Field(default=None, min_length=1)
    models: UpstreamNames = {}
    embedding_models: frozenset[str] = frozenset()
    slots: int = Field(default=32, ge=1, le=4096)

    connect_timeout_s: Seconds = 5.0
    """Maximum time to connect, including the wait for a free connection of the pool."""
    first_byte_timeout_s: Seconds = 120.0
    """Maximum time to the first byte of the response, and between bytes until text flows; includes the
    prefill of a long prompt."""
    chunk_timeout_s: Seconds | None = None
    """Maximum time between bytes (including keep-alive comments) once text flows. None: the node's `stall_s`
    applies."""
    max_backoff_s: Seconds = 300.0
    """Maximum time that a Retry-After of the upstream is obeyed."""

    max_line_bytes: Bytes = 1 << 20
    """Maximum size of one event of a stream."""
    max_answer_bytes: Bytes = 64 << 20
    """Maximum size of a response that is not streamed: embeddings, the list of models."""
    embedding_batch: int = Field(default=256, ge=1, le=2048)
    """Maximum inputs of one embedding request."""

    continues: Literal["auto", "no", "trailing_message", "continue_final_message"] = "auto"
    """How the upstream continues a chat that another node began: from a trailing assistant message
    (llama.cpp), or requested by that field (vLLM, SGLang). `auto`: by `owned_by` in its list of models. `no`:
    it generates the answer again, and the text that was already sent is skipped."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    repetition_penalty_field: str = "repetition_penalty"
    """vLLM's name; llama.cpp calls it `repeat_penalty`."""
    regex_field: str | None = None
    """The field for a regular expression, if supported: `guided_regex`, or a path such as
    `structured_outputs.regex` (vLLM)."""
    strict_json_schema: bool = True
    completion_schema_field: str | None = None
    """The field for a JSON schema in `/completions`, if supported: `json_schema` (llama.cpp, which silently
    ignores `response_format` there) or `response_format` (vLLM). Chats need no setting."""

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
