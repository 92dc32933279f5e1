"""The three steps of a sentence embedding: tokenizer, encoder, pooling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from actors.engine.sessions.onnx import load_session
from actors.engine.sessions.onnx_encoder import group_by_length
from actors.engine.settings import OnnxSettings
from actors.models.manifest import ModelManifest
from actors.models.tokenizer import Tokenizer
from orchestration.errors import BackendFailed, ContextTooLong

_CALL_TOKENS = 2048
"""Maximum tokens of one call of the encoder, as memory grows with the square of the length."""

_MASKED = "pooling.kept"
"""The graph's first node of the pooling that reads the hidden states (`actors.models.sentence_encoder`)."""


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Tokenised texts: `ids` and `mask` int64 [texts, tokens of the longest], padded with 0."""

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int32]:
        """Tokens of each text, int32 [texts, 1]."""
        counts: NDArray[np.int32] = self.mask.sum(axis=1, keepdims=True, dtype=np.int32)
        return counts


class SentenceTokenizer:
    """The first step: texts to tokens."""

    def __init__(self, folder: Path) -> None:
        self._manifest = ModelManifest.read(folder)
        self._tokenizer = Tokenizer.load(folder)

    def tokens(self, texts: Sequence[str]) -> TokenBatch:
        """Tokenise texts. Raises ContextTooLong for a text that is too long."""
        rows = [self._tokenizer.encode_sentence(text) for text in texts]
        longest, limit = max(map(len, rows)), self._manifest.context_tokens
        if longest > limit:
            error = ContextTooLong.of(self._manifest.name, longest, limit)
            error.param = "input"
            raise error
        tokens = TokenBatch(
            np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), np.int64)
        )
        for at, row in enumerate(rows):
            tokens.ids[at, : len(row)] = row
            tokens.mask[at, : len(row)] = 1
        return tokens


class SentenceEncoder:
    """The second step: the installed graph without its pooling."""

    def __init__(self, folder: Path, *, on_gpu: bool = False) -> None:
        providers = ("CUDAExecutionProvider", "CPUExecutionProvider") if on_gpu else ("CPUExecutionProvider",)
        self._session: Any = load_session(folder, OnnxSettings(providers=providers), _unpooled(folder))

    def hidden(self, batches: Sequence[TokenBatch]) -> list[NDArray[np.float32]]:
        """The hidden states float32 [texts, tokens, hidden] of each of `batches`, computed together."""
        states: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(batches)
        for group in _calls([batch.ids.shape for batch in batches]):
            tokens = _joined([batches[at] for at in group])
            feeds = {"input_ids": tokens.ids, "attention_mask": tokens.mask}
            joined: NDArray[np.float32] = self._session.run(None, feeds)[0]
            first = 0
            for at in group:
                texts, length = batches[at].ids.shape
                states[at] = np.ascontiguousarray(joined[first : first + texts, :length])
                first += texts
        return states


def pool(hidden: NDArray[np.float32], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    """The third step: the mean of `hidden` over the tokens under `mask`, scaled to length 1 (so the count
    cancels out), float32 [texts, hidden]."""
    summed = np.einsum("bth,bt->bh", hidden, mask.astype(np.float32))
    vectors: NDArray[np.float32] = summed / np.linalg.norm(summed, axis=1, keepdims=True)
    return vectors


def _calls(shapes: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Indices of batches of similar length, in groups of at most `_CALL_TOKENS`."""
    for group in group_by_length([length for _, length in shapes]):
        call: list[int] = []
        for at in group:  # ascending by length: all are padded to the last one
            if call and shapes[at][1] * sum(shapes[one][0] for one in [*call, at]) > _CALL_TOKENS:
                yield call
                call = []
            call.append(at)
        yield call


def _joined(batches: Sequence[TokenBatch]) -> TokenBatch:
    """One batch of all texts, padded to the longest."""
    if len(batches) == 1:
        return batches[0]
    longest = max(batch.ids.shape[1] for batch in batches)
    widths = [((0, 0), (0, longest - batch.ids.shape[1])) for batch in batches]
    return TokenBatch(
        np.concatenate([np.pad(batch.ids, width) for batch, width in zip(batches, widths, strict=True)]),
        np.concatenate([np.pad(batch.mask, width) for batch, width in zip(batches, widths, strict=True)]),
    )


def _unpooled(folder: Path) -> bytes:
    """The graph of `folder` cut before its pooling; its weights stay in their file."""
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    graph = model.graph
    named = {node.name: node for node in graph.node}
    if _MASKED not in named:
        raise BackendFailed(f"the graph in {str(folder)!r} has no node {_MASKED!r} to cut the pooling at")
    states = named[_MASKED].input[0]
    for name, node in named.items():
        if name.startswith("pooling.") or name == "embedding":
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    used_weights = [weights for weights in graph.initializer if weights.name in used]
    del graph.output[:], graph.initializer[:]
    graph.initializer.extend(used_weights)
    graph.output.append(
        onnx.helper.make_tensor_value_info(states, onnx.TensorProto.FLOAT, [None, None, None])
    )
    cut: bytes = model.SerializeToString()
    return cut
