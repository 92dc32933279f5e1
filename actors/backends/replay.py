"""A backend that streams recorded answers of models at a set speed.

It tests how patterns vote, parse, stop and weigh answers, without a model and without paying twice. Recorded
answers do not react to prompts, so it cannot test debates or syntheses.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from actors.backends.base import Backend, Output, host_hardware
from actors.backends.recorded import (
    QuestionIndex,
    RecordedQuestion,
    TextChunk,
    chunks,
    read_records,
    recorded_models,
    text_tokens,
)
from orchestration.errors import InvalidGuide, InvalidRequest, NotRecorded, UnknownModel
from orchestration.messages import (
    Finish,
    FinishReason,
    Generation,
    GuidedDecoding,
    Hardware,
    ModelCard,
    TextDelta,
    TextGeneration,
    Usage,
)

_SHOWN = 120
"""Maximum characters of a question in an error."""


class ReplaySettings(BaseModel):
    """The backend `replay`, which answers with recorded texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    records: Path
    """File of recorded answers, in JSON lines; it may be compressed with gzip."""
    models: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Recorded models to serve; empty: all."""
    slots: int = Field(default=64, ge=1, le=65_536)
    """Maximum generations in progress."""
    speed: float = Field(default=300.0, ge=0, le=1e6)
    """Tokens per second of each generation; 0: full speed."""
    first_token_s: float = Field(default=0.02, ge=0, le=3600)
    """Time to the first token."""
    chunk_tokens: int = Field(default=32, ge=1, le=4096)
    """Tokens of each chunk of a stream."""


class ReplayBackend(Backend):
    """Answers with recorded texts, one after another where a question has several.

    `written` counts generated tokens by record id and model, including stopped generations; `running` counts
    generations in progress by record id.
    """

    name = "replay"

    def __init__(self, settings: ReplaySettings, questions: QuestionIndex | None = None) -> None:
        """`questions`: those of the file, if they were already read."""
        self._settings = settings
        self._questions = questions or QuestionIndex(read_records(settings.records))
        self._models = recorded_models(self._questions.records, settings.models)
        self._given: Counter[tuple[str, str]] = Counter()
        self.written: Counter[tuple[str, str]] = Counter()
        self.running: Counter[str] = Counter()

    async def start(self, memory_bytes: int = 0) -> None:
        """Start again with the first sample of each question."""
        self._given.clear()

    async def close(self) -> None:
        """Do nothing."""

    @property
    def models(self) -> tuple[ModelCard, ...]:
        """The cards, without size, as for an upstream."""
        return tuple(ModelCard(name=name) for name in self._models)

    @property
    def hardware(self) -> Hardware:
        return host_hardware("replay")

    @property
    def slots(self) -> int:
        return self._settings.slots

    async def generate(self, generation: Generation) -> AsyncGenerator[Output, None]:
        """Raises `NotRecorded` for an unknown question, and `InvalidGuide` if the recorded text is not one of
        the guide's choices or the guide is of another kind."""
        if generation.kind == "embedding":
            raise InvalidRequest("the replay backend makes no embeddings")
        if generation.model not in self._models:
            raise UnknownModel.of(generation.model, list(self._models))
        record = self._found(generation)
        sample = self._sample(record, generation)
        text, tokens, reason = _cut(record, generation, sample)
        if generation.guide is not None:
            _check(generation.guide, text)
        key = str(record.id)
        self.running[key] += 1
        loop = asyncio.get_running_loop()
        started, tokens_sent = loop.time() + self._settings.first_token_s, 0
        try:
            for span in _rest(text, tokens, generation, self._settings.chunk_tokens):
                # Each chunk is due at a time relative to the start, so that late sleeps do not add up.
                due = started + (tokens_sent / self._settings.speed if self._settings.speed else 0)
                await asyncio.sleep(max(0.0, due - loop.time()))
                tokens_sent += span.tokens
                self.written[key, generation.model] += span.tokens
                yield TextDelta(text=span.text, tokens=span.tokens)
        finally:
            self.running[key] -= 1
            if not self.running[key]:
                del self.running[key]
        prompt_tokens = record.prompt_tokens(generation.model, sample)
        prompt_tokens = prompt_tokens or sum(map(text_tokens, generation.texts))
        yield Finish(reason=reason, usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=tokens))

    def _found(self, generation: TextGeneration) -> RecordedQuestion:
        if generation.kind == "chat":
            turns = [(each.role, each.content) for each in generation.messages]
        else:
            turns = [("user", generation.prompt)]
        record = self._questions.find(turns)
        if record is None or generation.model not in record.answers:
            last = turns[-1][1] if turns else ""
            shown = " ".join(last.split())
            shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
            what = "this question" if record is None else f"question {record.id!r}"
            raise NotRecorded(f"no answer of {generation.model!r} to {what} is recorded: {shown}")
        return record

    def _sample(self, record: RecordedQuestion, generation: Generation) -> int:
        """The next sample, or the one that another node began."""
        answers = record.answers[generation.model]
        if generation.prefix:
            matches = (at for at, text in enumerate(answers) if text.startswith(generation.prefix))
            return next(matches, 0)
        key = (str(record.id), generation.model)
        self._given[key] += 1
        return (self._given[key] - 1) % len(answers)


def _cut(record: RecordedQuestion, generation: Generation, sample: int) -> tuple[str, int, FinishReason]:
    """The text up to a stop string or `max_tokens`, its tokens, and the finish reason."""
    whole, tokens = record.answers[generation.model][sample], record.tokens(generation.model, sample)
    ends = [at for stop in generation.sampling.stop if stop and (at := whole.find(stop)) >= 0]
    text = whole[: min(ends, default=len(whole))]
    if ends:
        tokens = max(1, round(tokens * len(text) / max(1, len(whole))))
    max_tokens = generation.sampling.max_tokens
    if max_tokens is None or tokens <= max_tokens:
        return text, tokens, "stop"
    return text[: round(len(text) * max_tokens / tokens)], max_tokens, "length"


def _rest(text: str, tokens: int, generation: Generation, size: int) -> list[TextChunk]:
    """The chunks after the generation's prefix."""
    start = len(generation.prefix) if text.startswith(generation.prefix) else 0
    left = max(0, tokens - generation.prefix_tokens)
    if start >= len(text):
        return []
    return chunks(text[start:], max(1, left), size)


def _check(guide: GuidedDecoding, text: str) -> None:
    """Raise `InvalidGuide` unless the guide is a choice that the text is one of."""
    if guide.choice and text.strip() in guide.choice:
        return
    raise InvalidGuide("a recorded answer does not follow this guide", param="guide")
