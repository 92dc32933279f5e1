"""The analysis of a query: accuracy against a rule on keywords, time against its limit and against MiniLM;
and how soon `auto` learns which way to answer users like, in a simulation."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from actors.engine.sessions.onnx_encoder import OnnxEncoder
from actors.engine.settings import OnnxSettings
from actors.models.tokenizer import Tokenizer
from orchestration.bandit.bandit import best, choose
from orchestration.query_analysis.analysis import analyse
from orchestration.query_analysis.features import KINDS
from orchestration.query_analysis.profiles import Arm, arms
from orchestration.trust.observation import Observation
from orchestration.trust.records import KindRecord
from orchestration.trust.trust import Trust
from tests.fixtures.models import minilm_folder
from tests.orchestration.query_analysis.keywords import keyword_kind
from tests.orchestration.query_analysis.train import queries

LIMIT_MS = 2.0
HARD = "Compare nuclear and wind power for an island: cost and waste. Weigh the risks and recommend one."
PATTERNS = ("single", "maestro", "ensemble", "debate", "decompose")


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


def learning() -> None:
    """Users like each way to answer a hard question with a chance of its own, and each run gets a word."""
    ways = arms(analyse(HARD), PATTERNS)
    chances = dict(zip((way.name for way in ways), (0.3, 0.75, 0.5, 0.45, 0.4, 0.2), strict=False))
    marks = (50, 200, 1000)
    print(f"\n{'share of good answers after':32}" + "".join(f"{count:>10} runs" for count in marks))
    print(f"{'the best way always':32}" + f"{max(chances.values()):15.2f}" * len(marks))
    print(f"{'the way thought best always':32}" + f"{chances[best(ways).arm.name]:15.2f}" * len(marks))
    print(f"{'any way':32}" + f"{statistics.mean(chances.values()):15.2f}" * len(marks))
    rounds = [_liked(ways, chances, seed, max(marks)) for seed in range(10)]
    learnt = [statistics.mean(statistics.mean(each[:count]) for each in rounds) for count in marks]
    print(f"{'auto, all runs so far':32}" + "".join(f"{share:15.2f}" for share in learnt))
    late = statistics.mean(statistics.mean(each[-200:]) for each in rounds)
    print(f"{'auto, the last 200':32}{late:45.2f}")


def _liked(ways: Sequence[Arm], chances: Mapping[str, float], seed: int, runs: int) -> list[float]:
    """The chance of the way that each run took."""
    users, record, taken = np.random.default_rng(seed), KindRecord(), []
    for number in range(runs):
        way = choose(ways, record, f"{seed}.{number}", cost_weight=0).arm.name
        taken.append(chances[way])
        quality = float(users.random() < chances[way])
        seen = Observation(source="user", quality=quality, arm=way, caller=f"user {number % 20}")
        record = record.after(seen, Trust(record.models, vote_vs_best=record.vote_vs_best))
    return taken


if __name__ == "__main__":
    accuracy()
    speed()
    learning()
