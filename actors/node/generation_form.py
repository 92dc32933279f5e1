"""A generation in the form that a backend accepts."""

from __future__ import annotations

from actors.backends.base import Backend
from orchestration.errors import InvalidRequest
from orchestration.messages import ChatGeneration, Continuation, Generation


def for_backend(generation: Generation, backend: Backend) -> tuple[Generation, tuple[str, ...]]:
    """The generation as `backend` accepts it, and notes for the caller. Raises `InvalidRequest` if tools must
    be called and the backend calls none."""
    if not isinstance(generation, ChatGeneration):
        return generation, ()
    if generation.prefill:  # a backend continues it like a prefix; it costs the caller no token
        prefix = generation.continuation or Continuation()
        prefix = prefix.model_copy(update={"text": generation.prefill + prefix.text})
        generation = generation.model_copy(update={"continuation": prefix, "prefill": ""})
    if generation.offer is None or backend.calls_tools:
        return generation, ()
    problem = f"the {backend.name} backend cannot call tools"
    if generation.offer.choice != "auto":
        raise InvalidRequest(problem, param="tools")
    return generation.model_copy(update={"offer": None}), (f"tools: {problem}; it answered in text",)
