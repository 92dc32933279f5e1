"""What a generation needs of its node, in a short header beside its body.

The sender computes the needs once, so that a dispatcher places the generation without reading its body.
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
"""The label that a node with `tenants` requires."""

USUAL_OUTPUT = 128
"""Tokens expected of an answer without a limit."""
CHARACTERS_PER_TOKEN = 4
"""Rough average for English text and vocabularies of 32,000 tokens or more."""
TOKENS_PER_MESSAGE = 5
"""Tokens that a chat template adds to a message."""
LIGHT_PROMPT, LIGHT_OUTPUT = 96, 96
HEAVY_PROMPT, HEAVY_OUTPUT = 1_500, 768
MAX_SCANNED_CHARS = 2_000
"""Maximum number of characters of the question that are searched for words of hard work."""

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
"""Each match of `_HARD` contains one of them. Searching for the stems takes a tenth of the time."""
_HARD = re.compile(
    r"\b(step by step|prove|proof|derive|reason(ing)?|analy[sz]e|trade-?offs?|refactor|implement|debug|"
    r"optimi[sz]e|algorithm|design a|plan for|compare|critique|evaluate)\b",
    re.IGNORECASE,
)


class Demand(StrEnum):
    """How much a generation gains from a strong node."""

    LIGHT = "light"
    ORDINARY = "ordinary"
    HEAVY = "heavy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """`prompt_tokens` is an estimate; `output_tokens` is the limit, or the usual length. The node must have
    all `labels`."""

    model: str
    prompt_tokens: int = 64
    output_tokens: int = USUAL_OUTPUT
    demand: Demand = Demand.ORDINARY
    labels: frozenset[tuple[str, str]] = frozenset()
    bounded: bool = False
    """Whether the caller set a limit, so that `output_tokens` is a maximum."""

    def encode(self) -> str:
        """The value of the header: everything but the model, which is in the subject."""
        output = self.output_tokens if self.bounded else -1
        labels = "," + json.dumps(dict(sorted(self.labels)), separators=(",", ":")) if self.labels else ""
        return f'[{self.prompt_tokens},{output},"{self.demand}"{labels}]'

    @classmethod
    def decode(cls, model: str, text: str) -> Needs:
        """The reverse of `encode`; default needs for an empty text. Raises ValueError for anything else."""
        if not text:
            return cls(model=model)
        try:
            words = json.loads(text)
        except RecursionError:
            raise ValueError("invalid needs: nested too deeply") from None
        if not isinstance(words, list) or not 3 <= len(words) <= 4:
            raise ValueError(
                f"invalid needs {text[:80]!r}; expected [prompt_tokens, output_tokens, demand, labels]"
            )
        prompt, output, demand, *labels = words
        if not isinstance(prompt, int) or not isinstance(output, int) or prompt < 0:
            raise ValueError(
                f"invalid needs {text[:80]!r}; expected [prompt_tokens, output_tokens, demand, labels]"
            )
        return cls(
            model=model,
            prompt_tokens=prompt,
            output_tokens=output if output >= 0 else USUAL_OUTPUT,
            demand=Demand(demand),
            labels=parse_labels(labels[0]) if labels else frozenset(),
            bounded=output >= 0,
        )


def parse_labels(labels: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """Raises ValueError for anything but a mapping of strings."""
    if not isinstance(labels, Mapping) or not all(isinstance(value, str) for value in labels.values()):
        raise ValueError("labels must be an object whose values are strings")
    return frozenset(labels.items())


def needs_of(generation: Generation) -> Needs:
    """Estimate the needs from the request alone: lengths, limits, and words that indicate hard work."""
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
