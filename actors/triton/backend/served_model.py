"""Describes the models of a Triton server, which are recognised by their tensors."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from actors.models.chat_template import ChatTemplate
from actors.models.manifest import ModelManifest
from orchestration.messages import ModelCard

log = logging.getLogger(__name__)

CHAT_INPUTS = {
    "text_input": "BYTES",
    "messages": "BYTES",
    "stream": "BOOL",
    "sampling_parameters": "BYTES",
    "prefix": "BYTES",
    "prefix_tokens": "INT32",
}
CHAT_OUTPUTS = {
    "text_output": "BYTES",
    "token_count": "INT32",
    "finish_reason": "BYTES",
    "usage": "BYTES",
    "logprobs": "BYTES",
}
EMBEDDING_INPUTS = {"text": "BYTES"}
EMBEDDING_OUTPUTS = {"embedding": "FP32", "token_count": "INT32"}


class UnservableModel(Exception):
    """The model is neither a chat nor an embedding model; the text has the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model that Triton serves."""

    upstream: str
    """Name of the model in Triton."""
    card: ModelCard
    own: bool = True
    """Whether it is a model of Orchestra, which renders messages itself."""
    batch: int = 1
    """Maximum texts of one embedding request."""
    inputs: frozenset[str] = frozenset()
    """Names of the inputs that the model has."""
    steps: tuple[str, ...] = ()
    """Models that an ensemble runs; empty for a single model."""
    template: ChatTemplate | None = None
    """Renders the messages of a model that is not `own`; None: their texts are joined."""

    @property
    def embeds(self) -> bool:
        return self.card.kind == "embedding"


def describe_loaded(name: str, metadata: Any, config: Any, models_folder: Path | None) -> ServedModel:
    """Describe the loaded model `metadata.name`, served as `name`. Raises `UnservableModel`."""
    inputs = {tensor.name: tensor.datatype for tensor in metadata.inputs}
    outputs = {tensor.name: tensor.datatype for tensor in metadata.outputs}
    manifest = installed_manifest(name, models_folder, config.parameters["folder"].string_value)
    upstream, steps = metadata.name, tuple(step.model_name for step in config.ensemble_scheduling.step)
    if {"text", "embedding"} <= inputs.keys() | outputs.keys():
        _check(inputs, EMBEDDING_INPUTS, "input")
        _check(outputs, EMBEDDING_OUTPUTS, "output")
        card = _card(name, "embedding", manifest)
        batch = max(1, config.max_batch_size)
        return ServedModel(upstream=upstream, card=card, batch=batch, steps=steps)
    if "text_input" not in inputs or "text_output" not in outputs:
        signature = f"it takes {_list(inputs)} and gives {_list(outputs)}"
        raise UnservableModel(
            f"{signature}; a chat model has text_input and text_output, an embedding model text and embedding"
        )
    _check(inputs, CHAT_INPUTS, "input")
    _check(outputs, CHAT_OUTPUTS, "output")
    own = "messages" in inputs
    return ServedModel(
        upstream=upstream,
        card=_card(name, "chat", manifest),
        own=own,
        inputs=frozenset(inputs),
        steps=steps,
        template=None if own else _template(name, manifest),
    )


def installed_manifest(name: str, models_folder: Path | None, folder: str = "") -> ModelManifest | None:
    """The manifest in `folder` (from the model's configuration), else of the installed model `name`; None if
    neither exists, as on another machine."""
    places = [Path(folder)] if folder else []
    if models_folder is not None and "/" not in name:
        places.append(models_folder / name)
    for place in places:
        try:
            return ModelManifest.read(place)
        except (OSError, ValidationError):
            continue
    return None


def describe_unloaded(name: str, upstream: str, manifest: ModelManifest) -> ServedModel:
    """Describe a model that is not loaded, from the installed one; its tensors are read after the load."""
    return ServedModel(
        upstream=upstream,
        card=_card(name, manifest.kind, manifest).model_copy(update={"loaded": False}),
    )


def _template(name: str, manifest: ModelManifest | None) -> ChatTemplate | None:
    """The template for a foreign model. Its server tokenises the whole text, control tokens of users
    included."""
    if manifest is None or manifest.chat_template is None:
        log.warning(
            "model %s accepts no messages, and no model of that name is installed: messages are joined", name
        )
        return None
    log.warning("model %s accepts no messages: the installed model's chat template renders them", name)
    return ChatTemplate(manifest.chat_template, manifest.bos_token, manifest.eos_token, ())


def _card(name: str, kind: Any, manifest: ModelManifest | None) -> ModelCard:
    if manifest is None:
        return ModelCard(name=name, kind=kind)
    return ModelCard(
        name=name,
        kind=kind,
        context_tokens=manifest.context_tokens,
        parameters=manifest.parameters,
        memory_bytes=sum(manifest.sizes.values()),
    )


def _check(actual: Mapping[str, str], expected: Mapping[str, str], what: str) -> None:
    for name, datatype in expected.items():
        if actual.get(name, datatype) != datatype:
            raise UnservableModel(f"its {what} {name} has type {actual[name]}, expected {datatype}")


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
