"""Reads an upstream's list of models into model cards."""

from __future__ import annotations

import json
import logging
from typing import Any

from actors.backends.openai.settings import OpenAISettings
from orchestration.errors import BackendFailed, UnknownModel
from orchestration.messages import ModelCard

_LOG = logging.getLogger(__name__)
_CONTEXT_FIELDS = ("max_model_len", "context_length", "context_window", "max_context_length", "n_ctx")


def parse_models(answer: bytes, url: str) -> dict[str, dict[str, Any]]:
    """The entries of a `/models` response by id. Raises `BackendFailed` for an invalid one."""
    try:
        return {entry["id"]: entry for entry in json.loads(answer)["data"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BackendFailed(f"{url} sent no list of models") from error


def model_cards(
    settings: OpenAISettings, entries: dict[str, dict[str, Any]] | None, url: str
) -> dict[str, tuple[str, ModelCard]]:
    """Served name → (upstream name, card). `entries` is None if the upstream has no list.

    Raises `UnknownModel` if no model can be served.
    """
    known = entries or {}
    names = settings.models or {name: name for name in known}
    if not names:
        raise UnknownModel(f"{url} lists no model; name the models to serve: --serve NAME[=UPSTREAM_NAME]")
    for upstream in names.values():
        # Not an error: aliases, wildcard routes and models loaded on demand are often not in the list.
        if entries is not None and upstream not in known and not _is_alias(upstream, known):
            _LOG.warning("%s does not list model %s; it lists %s", url, upstream, ", ".join(sorted(known)))
    return {
        served: (upstream, _card(served, known.get(upstream, {}), settings))
        for served, upstream in names.items()
    }


def _is_alias(name: str, known: dict[str, dict[str, Any]]) -> bool:
    return any(name in (entry.get("aliases") or ()) for entry in known.values())


def _card(served: str, entry: dict[str, Any], settings: OpenAISettings) -> ModelCard:
    """The card, with context and size from the fields of vLLM, llama.cpp, LM Studio, Groq and OpenRouter."""
    meta = entry.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    context = next(
        (size for place in (entry, meta) for name in _CONTEXT_FIELDS if (size := _count(place, name))), 0
    )
    return ModelCard(
        name=served,
        kind="embedding" if settings.is_embedding(served) else "chat",
        context_tokens=context,
        parameters=_count(meta, "n_params"),
        memory_bytes=_count(meta, "size"),
    )


def _count(place: dict[str, Any], name: str) -> int:
    value = place.get(name)
    return value if isinstance(value, int) and value > 0 else 0
