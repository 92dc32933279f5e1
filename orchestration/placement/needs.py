"""What a generation asks of the node it runs on, in a few words that travel beside its body.

Whoever queues the generation works them out once, so that a dispatcher places it without reading the body.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from orchestration.messages import Generation

NEEDS_HEADER = "Orchestra-Needs"
"""What a generation needs of its node, as JSON: lengths of prompt and answer, labels and the like. A
dispatcher places it without reading the body."""
TENANT = "tenant"
"""The label that a node with `tenants` insists on."""

USUAL_OUTPUT = 128
"""Tokens expected of an answer whose caller named no limit."""
CHARACTERS_PER_TOKEN = 4
"""Of English text, roughly, for any vocabulary of 32,000 and more."""
TOKENS_PER_MESSAGE = 5
"""What a chat template puts around a message."""
LIGHT_PROMPT, LIGHT_OUTPUT = 96, 96
HEAVY_PROMPT, HEAVY_OUTPUT = 1_500, 768
MAX_SCANNED_CHARS = 2_000
"""Characters of the question that are searched for words of hard work."""

_STEMS = (
    "step",
    "prove",
    "proof",
    "derive",
    "reason",
    "analy",
    "trade",
    "refactor",
    "implement",
    "debug",
    "optimi",
    "algorithm",
    "design",
    "plan",
    "compare",
    "critique",
    "evaluate",
)
"""One of them is in whatever `_HARD` finds. To look for all of them takes a tenth of its time."""
_HARD = re.compile(
    r"\b(step by step|prove|proof|derive|reason(ing)?|analy[sz]e|trade-?offs?|refactor|implement|debug|"
    r"optimi[sz]e|algorithm|design a|plan for|compare|critique|evaluate)\b",
    re.IGNORECASE,
)


class Demand(StrEnum):
    """How much a generation would gain from a strong node."""

    LIGHT = "light"
    ORDINARY = "ordinary"
    HEAVY = "heavy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """`prompt_tokens` are estimated, `output_tokens` are the limit or the usual length. `labels` must be on
    the node."""

    model: str
    prompt_tokens: int = 64
    output_tokens: int = USUAL_OUTPUT
    demand: Demand = Demand.ORDINARY
    labels: frozenset[tuple[str, str]] = frozenset()
    bounded: bool = False
    """Whether the caller set a limit, so that `output_tokens` is the most there can be."""

    def encode(self) -> str:
        """All but the model, which is in the subject, as the value of a header."""
        output = self.output_tokens if self.bounded else -1
        labels = "," + json.dumps(dict(sorted(self.labels)), separators=(",", ":")) if self.labels else ""
        return f'[{self.prompt_tokens},{output},"{self.demand}"{labels}]'

    @classmethod
    def decode(cls, model: str, text: str) -> Needs:
        """What `encode` gave; ordinary needs for an empty text. Raises ValueError for anything else."""
        if not text:
            return cls(model=model)
        words = json.loads(text)
        if not isinstance(words, list) or not 3 <= len(words) <= 4:
            raise ValueError(f"{text[:80]!r} says no needs")
        prompt, output, demand, *labels = words
        if not isinstance(prompt, int) or not isinstance(output, int) or prompt < 0:
            raise ValueError(f"{text[:80]!r} says no needs")
        return cls(
            model=model,
            prompt_tokens=prompt,
            output_tokens=output if output >= 0 else USUAL_OUTPUT,
            demand=Demand(demand),
            labels=parse_labels(labels[0]) if labels else frozenset(),
            bounded=output >= 0,
        )


def parse_labels(labels: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """Raises ValueError for what is no mapping of texts."""
    if not isinstance(labels, Mapping) or not all(isinstance(value, str) for value in labels.values()):
        raise ValueError("labels are texts by name")
    return frozenset(labels.items())


def needs_of(generation: Generation) -> Needs:
    """Work them out from the request alone: lengths, limits, and words that promise hard thinking."""
    texts = generation.texts
    messages = len(texts) if generation.kind == "chat" else 0
    prompt = sum(map(len, texts)) // CHARACTERS_PER_TOKEN + TOKENS_PER_MESSAGE * messages
    max_tokens = generation.sampling.max_tokens
    output = 0 if generation.kind == "embedding" else max_tokens if max_tokens is not None else USUAL_OUTPUT
    bounded = generation.kind == "embedding" or max_tokens is not None
    return Needs(
        model=generation.model,
        prompt_tokens=prompt,
        output_tokens=output,
        demand=_demand(generation, prompt, output, bounded),
        labels=frozenset(generation.labels.items()),
        bounded=bounded,
    )


def _demand(generation: Generation, prompt: int, output: int, bounded: bool) -> Demand:
    if prompt >= HEAVY_PROMPT or output >= HEAVY_OUTPUT:
        return Demand.HEAVY
    is_text = generation.kind != "embedding" and generation.texts
    if is_text and _is_hard(generation.texts[-1][:MAX_SCANNED_CHARS]):
        return Demand.HEAVY
    return Demand.LIGHT if bounded and prompt <= LIGHT_PROMPT and output <= LIGHT_OUTPUT else Demand.ORDINARY


def _is_hard(question: str) -> bool:
    lowered = question.lower()
    return any(stem in lowered for stem in _STEMS) and _HARD.search(question) is not None
