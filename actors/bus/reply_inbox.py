"""Answers on one inbox: many requests share its single subscription."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count

from actors.bus.message import Message
from orchestration.errors import DeadlineExceeded, OrchestraError

OnReply = Callable[[Message], None]


class ReplyInbox:
    """Hands a message to `<inbox>.<token>` to the callback that expects it."""

    def __init__(self, inbox: str) -> None:
        self.inbox = inbox
        self.expected: dict[str, OnReply] = {}
        self.waiting: set[asyncio.Future[Message]] = set()
        self._prefix = len(inbox) + 1
        self._tokens = count()

    def expect(self, on_reply: OnReply) -> str:
        """A fresh reply subject; `on_reply` gets every message sent to it until `forget`."""
        token = f"{next(self._tokens):x}"
        self.expected[token] = on_reply
        return f"{self.inbox}.{token}"

    def forget(self, reply: str) -> None:
        self.expected.pop(reply[self._prefix :], None)

    def dispatch(self, message: Message) -> None:
        """Handle a message to the inbox."""
        on_reply = self.expected.get(message.subject[self._prefix :])
        if on_reply is not None:
            on_reply(message)

    def fail(self, error: Callable[[], OrchestraError]) -> None:
        """End every wait with `error`: the answers are lost."""
        for answer in list(self.waiting):
            if not answer.done():
                answer.set_exception(error())

    async def first(
        self,
        send: Callable[[str], Awaitable[None]],
        subject: str,
        seconds: float,
        within: set[asyncio.Future[Message]] | None,
    ) -> Message:
        """Send with a reply subject and wait for one message to it. While it waits its future is in
        `within`, where others may fail it. Raises `DeadlineExceeded` naming `subject`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Message] = loop.create_future()

        def on_reply(message: Message) -> None:
            if not answer.done():
                answer.set_result(message)

        def expired() -> None:
            if not answer.done():
                answer.set_exception(DeadlineExceeded(f"no answer on {subject} within {seconds:g} s"))

        reply = self.expect(on_reply)
        timer = loop.call_later(seconds, expired)
        self.waiting.add(answer)
        if within is not None:
            within.add(answer)
        try:
            await send(reply)
            return await answer
        finally:
            timer.cancel()
            self.waiting.discard(answer)
            if within is not None:
                within.discard(answer)
            self.forget(reply)
            if answer.done() and not answer.cancelled():
                answer.exception()  # retrieved, because sending itself may have failed first
