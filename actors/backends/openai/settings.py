"""Settings of an OpenAI-compatible upstream."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from actors.backends.base import UpstreamNames

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(ge=1024, le=2**31)]


class OpenAISettings(BaseModel):
    """The backend `openai`, for any server with OpenAI's API (the upstream)."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base_url: str
    """URL of the API as in OpenAI clients, `http://HOST:8000/v1`. Without a path: `/v1`."""
    api_key_env: str | None = Field(default=None, min_length=1)
    """Environment variable that holds the API key. Not set: no key is sent."""
    models: UpstreamNames = {}
    """Models to serve: the name in this cluster, and the upstream's name. Empty: all models that the upstream
    lists at the start."""
    embedding_models: frozenset[str] = frozenset()
    """Served names of embedding models. A name with `embed` in it counts as one too."""
    slots: int = Field(default=32, ge=1, le=4096)
    """Maximum generations in progress at the upstream."""

    connect_timeout_s: Seconds = 5.0
    """Maximum time to connect, including the wait for a free connection of the pool."""
    first_byte_timeout_s: Seconds = 120.0
    """Maximum time to the first byte of the response, and between bytes until text flows; includes the
    prefill of a long prompt."""
    chunk_timeout_s: Seconds | None = None
    """Maximum time between bytes (including keep-alive comments) once text flows. Not set: `node.stall_s`."""
    tail_timeout_s: Seconds = 5.0
    """Maximum time between bytes after the answer is complete, for its usage. The answer ends then."""
    max_backoff_s: Seconds = 300.0
    """Maximum time for which a `Retry-After` of the upstream is obeyed."""

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
    """Name of the field for the maximum tokens of a chat."""
    repetition_penalty_field: str = "repetition_penalty"
    """Name of the field for the repetition penalty. llama.cpp calls it `repeat_penalty`."""
    regex_field: str | None = None
    """Name of the field for a regular expression: `guided_regex`, or a path such as
    `structured_outputs.regex` (vLLM). Not set: the upstream supports none."""
    strict_json_schema: bool = True
    """Value of `strict` for JSON schemas that Orchestra writes itself, such as those of plans."""
    completion_schema_field: str | None = None
    """Name of the field for a JSON schema in `/completions`: `json_schema` (llama.cpp) or `response_format`
    (vLLM). Not set: the upstream supports none there. Chats need no setting."""

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
