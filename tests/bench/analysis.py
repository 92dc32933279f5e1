"""The analysis of a query: accuracy against a rule on keywords, time against its limit and against MiniLM."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

from actors.models.tokenizer import Tokenizer
from actors.node.engine.sessions.onnx_encoder import OnnxEncoder
from actors.node.engine.settings import OnnxSettings
from orchestration.tuning.analysis import analyse
from orchestration.tuning.features import KINDS
from tests.fixtures.models import minilm_folder
from tests.tuning.keywords import keyword_kind
from tests.tuning.train import queries

LIMIT_MS = 2.0


def times(call: Callable[[str], object], texts: Iterable[str]) -> tuple[float, float]:
    """Milliseconds a text: the median and the 99th percentile."""
    taken = []
    for text in texts:
        began = time.perf_counter()
        call(text)
        taken.append((time.perf_counter() - began) * 1e3)
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98]


def accuracy() -> None:
    labelled = queries("queries.jsonl")
    print(f"{'kind':16}{'queries':>10}{'analysis':>10}{'keywords':>10}")
    english = [query for query in labelled if query["language"] == "en"]
    groups: dict[str, list[dict[str, Any]]] = {
        "all": labelled,
        **{kind: [query for query in labelled if query["kind"] == kind] for kind in KINDS},
        "English": english,
        "other languages": [query for query in labelled if query not in english],
    }
    for name, group in groups.items():
        ours = statistics.mean(analyse(query["text"]).kind == query["kind"] for query in group)
        rule = statistics.mean(keyword_kind(query["text"]) == query["kind"] for query in group)
        print(f"{name:16}{len(group):10}{ours:10.3f}{rule:10.3f}")


def speed() -> None:
    texts = [query["text"] for query in queries("queries.jsonl")]
    tokenizer = Tokenizer.load(minilm_folder())
    encoder = OnnxEncoder(minilm_folder(), OnnxSettings())

    def minilm(text: str) -> object:
        return encoder.embed([tokenizer.encode_sentence(text)[:512]])

    for call in (analyse, minilm):
        times(call, texts[:50])
    rows = {
        "analysis, the 301 queries": times(analyse, texts),
        "analysis, 2,000 words": times(analyse, ["and then some more words " * 400] * 100),
        "MiniLM alone, the 301 queries": times(minilm, texts),
    }
    print(f"\n{'':32}{'p50 ms':>10}{'p99 ms':>10}{'p50 of limit':>14}")
    for name, (median, last) in rows.items():
        print(f"{name:32}{median:10.2f}{last:10.2f}{median / LIMIT_MS:14.2f}")
    print(f"limit {LIMIT_MS:g} ms")


if __name__ == "__main__":
    accuracy()
    speed()
