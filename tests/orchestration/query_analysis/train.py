"""Makes `orchestration/query_analysis/weights.npz` from `training.jsonl`.

`python -m tests.orchestration.query_analysis.train` runs it.

Multinomial logistic regression for the kind and ridge regression for difficulty and length, by Nesterov's
accelerated gradient descent from zero: no randomness, so the same data gives the same weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.numpy_helper import to_array

from orchestration.query_analysis import analysis
from orchestration.query_analysis.analysis import HEADS, MAX_PIECES, Weights
from orchestration.query_analysis.features import KINDS, features
from orchestration.query_analysis.word_pieces import word_pieces
from tests.fixtures.models import minilm_folder

HERE = Path(__file__).parent
WEIGHTS = Path(analysis.__file__).with_name("weights.npz")
SURFACE = 3.0
"""Weight of the surface against the embedding, both scaled to a variance of one."""
L2 = 0.01
"""Both chosen by five-fold cross-validation on the training queries, never by the test set."""
STEPS = 400

Floats = NDArray[np.float64]


def queries(name: str) -> list[dict[str, Any]]:
    """The labelled queries of a file beside this one."""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def minilm() -> tuple[dict[str, int], Floats]:
    """The vocabulary of all-MiniLM-L6-v2 and its static embeddings [pieces, 384]."""
    folder = minilm_folder()
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    graph = onnx.load(str(folder / "model.onnx")).graph
    name = "embeddings.word_embeddings.weight"
    table = next(tensor for tensor in graph.initializer if tensor.name == name)
    return vocabulary, to_array(table).astype(np.float64)


def train(labelled: Sequence[dict[str, Any]], vocabulary: dict[str, int], embeddings: Floats) -> Weights:
    """The weights for `labelled`."""
    texts = [query["text"] for query in labelled]
    ids = [word_pieces(text, vocabulary)[:MAX_PIECES] for text in texts]
    means = np.array(
        [embeddings[each].mean(axis=0) if each else np.zeros(embeddings.shape[1]) for each in ids]
    )
    surfaces = np.array([features(text) for text in texts], np.float64)
    mean, spread = means.mean(axis=0), means.std()
    centre, width = surfaces.mean(axis=0), surfaces.std()
    inputs = np.hstack(
        [(means - mean) / spread, (surfaces - centre) / width * SURFACE, np.ones((len(texts), 1))]
    )
    kinds = np.eye(len(KINDS))[[KINDS.index(query["kind"]) for query in labelled]]
    numbers = np.array([[query["difficulty"], np.log2(query["tokens"])] for query in labelled])
    solved = np.hstack([_logistic(inputs, kinds), _ridge(inputs, numbers)])
    words, surface, bias = np.split(solved, [embeddings.shape[1], len(solved) - 1])
    words, surface = words / spread, surface * SURFACE / width
    bias = bias[0] - mean @ words - centre @ surface
    folded = embeddings @ words
    scale = np.abs(folded).max(axis=0) / 127
    return Weights(
        vocabulary=vocabulary,
        table=np.round(folded / scale).astype(np.int8),
        scale=scale.astype(np.float32),
        surface=surface.astype(np.float32),
        bias=bias.astype(np.float32),
    )


def _logistic(inputs: Floats, targets: Floats) -> Floats:
    """Weights [inputs, classes] of least cross-entropy with `L2`, the last input left free."""
    count = len(inputs)
    rate = 1 / (0.5 * np.linalg.norm(inputs, 2) ** 2 / count + L2)
    weights = ahead = np.zeros((inputs.shape[1], targets.shape[1]))
    momentum = 1.0
    for _ in range(STEPS):
        scores = inputs @ ahead
        likely = np.exp(scores - scores.max(axis=1, keepdims=True))
        likely /= likely.sum(axis=1, keepdims=True)
        penalty = L2 * ahead
        penalty[-1] = 0
        stepped = ahead - rate * (inputs.T @ (likely - targets) / count + penalty)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = stepped + (momentum - 1) / following * (stepped - weights)
        weights, momentum = stepped, following
    return weights


def _ridge(inputs: Floats, targets: Floats) -> Floats:
    """Weights [inputs, outputs] of least squares with a penalty, the last input left free."""
    penalty = np.eye(inputs.shape[1]) * L2 * 10 * len(inputs)
    penalty[-1, -1] = 0
    return np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ targets)


def save(weights: Weights, file: Path) -> None:
    words = sorted(weights.vocabulary, key=weights.vocabulary.__getitem__)
    np.savez_compressed(
        file,
        vocabulary=np.frombuffer("\n".join(words).encode(), np.uint8),
        table=weights.table,
        scale=weights.scale,
        surface=weights.surface,
        bias=weights.bias,
    )


if __name__ == "__main__":
    made = train(queries("training.jsonl"), *minilm())
    save(made, WEIGHTS)
    print(f"{WEIGHTS.name}: {WEIGHTS.stat().st_size / 1e3:.0f} kB for {', '.join(HEADS)}")
