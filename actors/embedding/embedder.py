"""Computes sentence vectors in the agents' process, so that patterns need no node for them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from actors.installation.optional_imports import needs_extra
from actors.models.folder import verify
from actors.models.manifest import ModelManifest
from actors.models.pull import ready
from actors.telemetry.memory import release_memory
from orchestration.errors import NoNode, OrchestraError

if TYPE_CHECKING:
    from actors.engine.sessions.onnx_encoder import OnnxEncoder
    from actors.models.tokenizer import Tokenizer

log = logging.getLogger(__name__)

CACHED_VECTORS = 2048
"""Maximum cached vectors; one of 384 numbers takes 1.5 KB."""
BATCH = 16
"""Texts per call, so that other callers need not wait for a long list."""
MAX_CHARACTERS = 20_000
"""Characters of a text that are read; the model's context of 512 tokens is far shorter."""

IDLE_S = 20.0
"""Idle time after which the model is unloaded (90 MB); a reload takes 0.3 s."""

Vector = NDArray[np.float32]


class Embedder:
    """The sentence encoder of a model folder, in its own thread. It is loaded at the first use (0.3 s, 90 MB)
    and unloaded after `idle_s` seconds without use. Texts are cut at the model's context. Call `close` at the
    end.

    If the folder is missing, the first use starts `pull` in the background; until it has ended `vectors`
    raises `NoNode`.
    """

    def __init__(
        self,
        folder: Path,
        pull: Callable[[], object] | None = None,
        *,
        idle_s: float = IDLE_S,
        max_cached: int = CACHED_VECTORS,
    ) -> None:
        self.max_cached = max_cached
        self.folder = folder
        self._idle_s = idle_s
        self._unloading: asyncio.TimerHandle | None = None
        self._pull = pull
        self._pulling: threading.Thread | None = None
        self._pull_failure = ""
        self._cache: OrderedDict[str, Vector] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._model: tuple[ModelManifest, Tokenizer, OnnxEncoder] | None = None
        self._broken = ""

    @property
    def usable(self) -> bool:
        """False after the model could not be loaded."""
        return not self._broken

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._model is not None

    @property
    def cached(self) -> int:
        """Vectors in the cache."""
        return len(self._cache)

    async def vectors(self, texts: Sequence[str]) -> Vector:
        """A unit vector for each text. Raises `NoNode` if the model cannot be loaded."""
        found: dict[str, Vector] = {}
        for text in texts:
            if text in self._cache:
                self._cache.move_to_end(text)
                found[text] = self._cache[text]
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        loop = asyncio.get_running_loop()
        for at in range(0, len(missing), BATCH):
            part = missing[at : at + BATCH]
            rows = await loop.run_in_executor(self._thread, self._compute, part)
            for text, row in zip(part, rows, strict=True):
                found[text] = self._cache[text] = row
            while len(self._cache) > self.max_cached:
                self._cache.popitem(last=False)
        if missing:
            self._unload_when_idle(loop)
        if not texts:
            return np.zeros((0, 0), np.float32)
        return np.stack([found[text] for text in texts])

    def close(self) -> None:
        """Stop the thread after the current call; waiting calls are cancelled."""
        if self._unloading is not None:
            self._unloading.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _unload_when_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._unloading is not None:
            self._unloading.cancel()
        # In its own thread, so that nothing is computed meanwhile.
        self._unloading = loop.call_later(self._idle_s, self._thread.submit, self._unload)

    def _unload(self) -> None:
        if self._model is not None:
            self._model = None
            release_memory()

    def _compute(self, texts: Sequence[str]) -> Vector:
        manifest, tokenizer, encoder = self._loaded()
        inputs = [tokenizer.encode_sentence(text[:MAX_CHARACTERS]) for text in texts]
        longest = manifest.context_tokens
        return encoder.embed(
            [ids if len(ids) <= longest else [*ids[: longest - 1], ids[-1]] for ids in inputs]
        )

    def _loaded(self) -> tuple[ModelManifest, Tokenizer, OnnxEncoder]:
        if self._broken:
            raise NoNode(self._broken)
        if self._model is None:
            self._require_folder()
            try:
                # Here: onnxruntime takes 0.2 s and 20 MB, which agents that embed nothing never need.
                with needs_extra("onnx", "an embedding model"):
                    from actors.engine.sessions.onnx_encoder import OnnxEncoder
                    from actors.models.tokenizer import Tokenizer
                from actors.engine.settings import OnnxSettings

                manifest = verify(self.folder, hashes=False)
                encoder = OnnxEncoder(self.folder, OnnxSettings())
                self._model = manifest, Tokenizer.load(self.folder), encoder
            except OrchestraError as error:
                self._broken = f"the agents' own embedding model cannot be loaded: {error.message}"
                log.warning("%s", self._broken)
                raise NoNode(self._broken) from error
        return self._model

    def _require_folder(self) -> None:
        """Raises `NoNode` while the model is missing, and starts its pull."""
        if self._pull is None or ready(self.folder.name, self.folder.parent) is not None:
            return
        if self._pull_failure:
            raise NoNode(self._pull_failure)
        if self._pulling is None:
            log.warning("fetching the agents' own embedding model %s (agents.embedder)", self.folder.name)
            # A daemon thread: the process must not wait for a download when it ends.
            self._pulling = threading.Thread(target=self._pull_model, name="embedder-pull", daemon=True)
            self._pulling.start()
        raise NoNode(f"the agents' own embedding model {self.folder.name} is being fetched")

    def _pull_model(self) -> None:
        assert self._pull is not None
        try:
            self._pull()
        except OrchestraError as error:
            self._pull_failure = f"the agents' own embedding model cannot be fetched: {error.message}"
            log.warning("the agents go on without it (agents.embedder): %s", self._pull_failure)
