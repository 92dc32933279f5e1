"""When two requests would get the same answer."""

from __future__ import annotations

import hashlib

from pydantic_core import to_json

from orchestration.messages import Generation, Run

_VERSION = 1
"""Part of every fingerprint: raise it when the meaning of a field changes, and old answers match no more."""


def fingerprint(work: Generation | Run, namespace: str) -> str:
    """SHA-256, in hexadecimal, over everything that changes the answer, and over who may share it.

    The id and the priority change nothing. A parameter that was not said differs from one that was said
    with the value of the default: which default that is, the node decides. Keys of a JSON schema keep their
    order, because a guided answer has its fields in that order.
    """
    head = to_json([_VERSION, type(work).__name__, namespace])
    said = work.model_dump_json(exclude={"id", "priority"}, exclude_defaults=True)
    return hashlib.sha256(head + said.encode()).hexdigest()


def is_deterministic(work: Generation | Run) -> bool:
    """Whether asking again would give the same answer, as far as anybody can promise.

    Embeddings always do, and text does at temperature 0. A seed says that the caller wants the same
    answer again (OpenAI's meaning of it), so a stored one serves it at least as well. A run never does:
    what its steps say depends on who answered first, and on what failed.
    """
    if isinstance(work, Run):
        return False
    return work.kind == "embedding" or work.sampling.temperature == 0 or work.sampling.seed is not None
