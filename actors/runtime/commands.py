"""Requests of operators to all processes at once, and the answers of each.

Every part of a process that has something to tell or to do answers requests on `operate.<verb>`. Whoever asks
waits for a moment after the last answer, and until a deadline for the processes that are expected to answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.subjects import CommandAddress
from actors.runtime.failures import UNEXPECTED_ERRORS, internal_error
from actors.runtime.service import decode_model
from actors.telemetry.event_log import event_log
from orchestration.wire import ErrorBody, Wire

log = logging.getLogger(__name__)

QUIET_S = 0.25
"""The answers are complete when no further one has come for this time, and no process is waited for."""
DEADLINE_S = 2.0
"""Maximum time to wait for processes that are expected to answer."""
MAX_ANSWERS = 10_000

W = TypeVar("W", bound=Wire)


class NoParameters(Wire):
    """A request that says no more than its verb."""


class CommandAnswer(Wire):
    """The answer of one part of a process."""

    process: str
    """Id of the process."""
    part: str
    """The part that answers, such as `dispatcher`."""
    data: Any = None
    error: ErrorBody | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandAnswers:
    """All answers. `missing` are the processes that were expected to answer and have not."""

    answers: tuple[CommandAnswer, ...] = ()
    missing: tuple[str, ...] = ()


class CommandResponder:
    """Answers for one part of this process from `serve` to `stop`."""

    def __init__(self, bus: Bus, part: str) -> None:
        self.bus = bus
        self.part = part
        self._subscriptions: list[Subscription] = []

    async def serve(self, verb: str, kind: type[W], command: Callable[[W], Any]) -> None:
        """Answer `verb` with what `command` makes of a request of this kind."""
        decode = decode_model(kind, empty=b"{}")

        def on_request(message: Message) -> None:
            data, error = None, None
            try:
                data = command(decode(message))
            except UNEXPECTED_ERRORS as failure:
                error = internal_error(f"the command {verb} of an operator", failure, "commands").body()
            answer = CommandAnswer(process=event_log.identity.id, part=self.part, data=data, error=error)
            self.bus.answer(message, answer.model_dump_json().encode())

        subject = CommandAddress(verb).subject
        self._subscriptions.append(await self.bus.subscribe(subject, on_request))

    async def stop(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await subscription.unsubscribe()


async def ask_all(
    bus: Bus,
    verb: str,
    request: Any = None,
    *,
    expected: Collection[str] = (),
    deadline_s: float = DEADLINE_S,
    quiet_s: float = QUIET_S,
) -> CommandAnswers:
    """Send a request to all parts that answer `verb`. Raises `BusUnavailable`."""
    answers: list[CommandAnswer] = []
    waited_for = set(expected)
    news = asyncio.Event()

    def answered(message: Message) -> None:
        try:
            answer = CommandAnswer.model_validate_json(message.data)
        except ValidationError:  # also NATS' reply that nobody listens
            return
        if len(answers) < MAX_ANSWERS:
            answers.append(answer)
        waited_for.discard(answer.process)
        news.set()

    loop = asyncio.get_running_loop()
    until = loop.time() + deadline_s
    reply = bus.expect(answered)
    try:
        await bus.publish(CommandAddress(verb).subject, to_json(request or {}), reply=reply)
        while (left := until - loop.time()) > 0:
            news.clear()
            try:
                async with asyncio.timeout(left if waited_for else min(left, quiet_s)):
                    await news.wait()
            except TimeoutError:
                break
    finally:
        bus.forget(reply)
    return CommandAnswers(answers=tuple(answers), missing=tuple(sorted(waited_for)))
