"""Recognises requests that would get the same response."""

from __future__ import annotations

import hashlib

from pydantic_core import to_json

from orchestration.messages import Run, Work

_VERSION = 1
"""Part of every fingerprint. Raise it when the meaning of a field changes: old entries do not match then."""


def fingerprint(work: Work, namespace: str) -> str:
    """Return the SHA-256, in hexadecimal, of everything that changes the response, and of the namespace.

    The id, the priority and whether the caller streams change nothing. A parameter that is not set differs
    from one that is set to the default, because the node decides which default that is. Keys of a JSON schema
    keep their order: a guided answer has its fields in that order.
    """
    head = to_json([_VERSION, namespace])
    fields = work.model_dump_json(exclude={"id", "priority", "streamed"}, exclude_defaults=True)
    return hashlib.sha256(head + fields.encode()).hexdigest()


def is_deterministic(work: Work) -> bool:
    """Whether the same request would get the same response again.

    Embeddings do, and text at temperature 0. With a seed the caller wants the same response again (OpenAI's
    meaning of it), so a cached one is right too. A run does not: its steps depend on which model answers
    first, and on what fails.
    """
    if isinstance(work, Run):
        return False
    return work.kind == "embedding" or work.sampling.temperature == 0 or work.sampling.seed is not None
