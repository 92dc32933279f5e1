"""Several choices of one request: `n` of them, or one for each prompt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from actors.openai_api.encoder import (
    ChoiceEvent,
    Event,
    ResponseEncoder,
    TextEncoder,
    usage_json,
)
from orchestration.messages import StreamEnd, StreamEvent, Usage

MAX_CHOICES = 64
"""Maximum choices of one request: `n` times the number of prompts."""


class ChoicesEncoder(ResponseEncoder):
    """Encodes several choices as one response. Each prompt has `repeats` choices; its tokens count once."""

    def __init__(self, encoders: Sequence[TextEncoder], *, repeats: int, include_usage: bool) -> None:
        self.encoders = encoders
        self._repeats = repeats
        self._include_usage = include_usage
        self._usages: dict[int, Usage] = {}
        for index, encoder in enumerate(encoders):
            encoder.index = index
            encoder.include_usage = False

    def encode_event(self, event: Event) -> tuple[bytes, ...]:
        assert isinstance(event, ChoiceEvent)
        encoder = self.encoders[event.index]
        objects = encoder.encode_event(event.event)
        if isinstance(event.event, StreamEnd):
            self._usages[event.index] = event.event.finish.usage
            if self._include_usage and len(self._usages) == len(self.encoders):
                objects = (*objects, encoder.encode_usage(self._usage()))
        return objects

    def add(self, event: Event) -> None:
        assert isinstance(event, ChoiceEvent)
        self.encoders[event.index].add(event.event)
        if isinstance(event.event, StreamEnd):
            self._usages[event.index] = event.event.finish.usage

    def encode_full(self) -> bytes:
        bodies: list[dict[str, Any]] = [from_json(encoder.encode_full()) for encoder in self.encoders]
        first = bodies[0]
        first["choices"] = [choice for body in bodies for choice in body["choices"]]
        first["usage"] = usage_json(self._usage())
        return to_json(first)

    def describe(self, trace_id: str, origin: str) -> None:
        for encoder in self.encoders:
            encoder.describe(trace_id, origin)

    def _usage(self) -> Usage:
        total = Usage()
        for index, usage in sorted(self._usages.items()):
            once = {} if index % self._repeats == 0 else {"prompt_tokens": 0, "cached_tokens": 0}
            total = total + usage.model_copy(update=once)
        return total


async def merge_choices(
    answers: Sequence[AsyncGenerator[StreamEvent, None]],
) -> AsyncGenerator[ChoiceEvent, None]:
    """Yield the events of all choices as they come. The first error cancels all; so does closing it."""
    waiting = {asyncio.ensure_future(anext(events)): index for index, events in enumerate(answers)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=waiting.__getitem__):
                index = waiting.pop(task)
                try:
                    event = task.result()
                except StopAsyncIteration:
                    continue
                waiting[asyncio.ensure_future(anext(answers[index]))] = index
                yield ChoiceEvent(index, event)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for events in answers:
            await events.aclose()
