"""Loads model folders into engines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from actors.engine.embedding import EmbeddingEngine
from actors.engine.engine import Engine, EngineParts
from actors.engine.guidance import GuideCompiler
from actors.engine.kv import KvShape
from actors.engine.prompt import PromptBuilder
from actors.engine.runtime import Runtime
from actors.engine.settings import EngineSettings
from actors.models.folder import verify
from actors.models.manifest import ModelManifest
from actors.models.tokenizer import TOKENIZER, Tokenizer
from orchestration.errors import InvalidRequest
from orchestration.messages import ModelCard

LOAD_S, LOAD_BYTES_S = 0.3, 500e6
"""Estimate of the load time, until it is measured: seconds, and bytes per second. Measured: 0.45 s for the
116 MB of SmolLM2-135M, hashed and read from the page cache."""

_PADDING = 2
"""Extra tokens of a row, with which a session may pad its smallest call."""


@dataclass(kw_only=True)
class ChatModel:
    """A loaded chat model: its engine and the preparation of requests."""

    manifest: ModelManifest
    card: ModelCard
    context_tokens: int
    """Maximum tokens of prompt and answer together."""
    prompts: PromptBuilder
    engine: Engine
    tokenizer_json: str
    """Text of tokenizer.json, for guides."""

    @cached_property
    def guides(self) -> GuideCompiler:
        """Made with the first guide. Use it from one thread only."""
        return GuideCompiler(
            self.tokenizer_json, self.manifest.vocabulary, sorted(self.manifest.eog_token_ids)
        )


@dataclass(kw_only=True)
class EmbeddingModel:
    """A loaded embedding model."""

    manifest: ModelManifest
    card: ModelCard
    tokenizer: Tokenizer
    engine: EmbeddingEngine


def describe_model(folder: Path, settings: EngineSettings, runtime: Runtime) -> ModelCard:
    """The card of a model that is not loaded, from its manifest and its files' sizes.

    Raises `CorruptModel`, and InvalidRequest if the settings are too small for the model.
    """
    manifest = verify(folder, hashes=False)
    context, _ = _context(manifest, settings, runtime.shape(manifest), runtime.reserves)
    card = _card(folder, manifest, context)
    return card.model_copy(update={"load_s": LOAD_S + card.memory_bytes / LOAD_BYTES_S})


def load_model(folder: Path, settings: EngineSettings, runtime: Runtime) -> ChatModel | EmbeddingModel:
    """Check and load `folder`; blocks for a few hundred milliseconds.

    Raises `CorruptModel` for files that do not match the manifest, `BackendFailed` for a model that the
    runtime refuses, and InvalidRequest if the settings are too small for the model.
    """
    manifest = verify(folder)
    return (
        _embedding(folder, manifest, settings, runtime)
        if manifest.kind == "embedding"
        else _chat(folder, manifest, settings, runtime)
    )


def _rows(settings: EngineSettings) -> int:
    """The rows of the cache: one more than slots, see SlotMap."""
    return settings.slots + 1


def cache_size(
    manifest: ModelManifest, settings: EngineSettings, shape: KvShape, *, reserves: bool
) -> tuple[int, int]:
    """The rows of a chat model's cache and the length of each in tokens, as `load_model` opens it.

    `shape` and `reserves` are those of the runtime. Raises InvalidRequest.
    """
    return _rows(settings), _context(manifest, settings, shape, reserves)[0] + _PADDING


def _context(
    manifest: ModelManifest, settings: EngineSettings, shape: KvShape, reserves: bool
) -> tuple[int, int]:
    """The maximum context of a request, and the maximum cached tokens of all requests."""
    if manifest.kind == "embedding":
        return manifest.context_tokens, 0
    token_bytes = shape.token_bytes
    kv_tokens = settings.kv_cache_bytes // token_bytes
    room = kv_tokens // _rows(settings) if reserves else kv_tokens
    context = min(manifest.context_tokens, settings.context_tokens, room - _PADDING)
    if context < _PADDING:
        raise InvalidRequest(
            f"kv_cache_bytes {settings.kv_cache_bytes} holds {kv_tokens} tokens of model {manifest.name!r}, "
            f"at {token_bytes} bytes each",
            param="kv_cache_bytes",
        )
    return context, kv_tokens


def _chat(folder: Path, manifest: ModelManifest, settings: EngineSettings, runtime: Runtime) -> ChatModel:
    shape = runtime.shape(manifest)
    context, kv_tokens = _context(manifest, settings, shape, runtime.reserves)
    rows, length = cache_size(manifest, settings, shape, reserves=runtime.reserves)
    tokenizer = Tokenizer.load(folder)
    opened = runtime.open(folder, manifest, settings, rows=rows, length=length)
    parts = EngineParts(
        session=opened.session,
        kv=opened.kv,
        prefix=opened.prefix,
        lookahead=opened.lookahead if settings.lookahead else None,
        tokenizer=tokenizer,
        end_tokens=frozenset(manifest.eog_token_ids),
        kv_tokens=kv_tokens,
    )
    return ChatModel(
        manifest=manifest,
        card=_card(folder, manifest, context),
        context_tokens=context,
        prompts=PromptBuilder(manifest, tokenizer, context_tokens=context),
        engine=Engine(manifest.name, parts, settings),
        tokenizer_json=(folder / TOKENIZER).read_text(encoding="utf-8"),
    )


def _embedding(
    folder: Path, manifest: ModelManifest, settings: EngineSettings, runtime: Runtime
) -> EmbeddingModel:
    return EmbeddingModel(
        manifest=manifest,
        card=_card(folder, manifest, manifest.context_tokens),
        tokenizer=Tokenizer.load(folder),
        engine=EmbeddingEngine(manifest.name, runtime.encoder(folder), settings),
    )


def _card(folder: Path, manifest: ModelManifest, context_tokens: int) -> ModelCard:
    return ModelCard(
        name=manifest.name,
        kind=manifest.kind,
        context_tokens=context_tokens,
        parameters=manifest.parameters,
        memory_bytes=sum(path.stat().st_size for path in folder.glob("model.onnx*")),
    )
