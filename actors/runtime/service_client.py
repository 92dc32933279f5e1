"""A client of the cluster over NATS, as the shell uses it: the service `orchestra`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from secrets import token_hex
from typing import Any

from actors.bus.bus import Bus, Message
from actors.bus.message import ERROR, ERROR_CODE
from actors.bus.subjects import CHAT_CANCEL_SUBJECT, CHAT_SUBJECT
from actors.runtime.envelope import CALLER, DEFAULT_DEADLINE_S, Envelope
from orchestration.errors import (
    BusUnavailable,
    DeadlineExceeded,
    InternalError,
    NoResponders,
    OrchestraError,
    Unavailable,
    from_body,
)
from orchestration.wire import ErrorBody

CALL_TIMEOUT_S = 30.0
WAY_OUT = "orchestra up, or orchestra gateway"


async def chat(bus: Bus, body: dict[str, Any], envelope: Envelope) -> AsyncGenerator[dict[str, Any], None]:
    """Send a body of /v1/chat/completions and yield its chunks as the OpenAI API has them.

    Raises the error the cluster answered, `Unavailable` when no gateway listens, `BusUnavailable` when
    NATS goes. Closing the iterator cancels the request: by its id, when a chunk has brought it; else the
    gateway notices at its next chunk that the caller is gone.
    """
    replies: asyncio.Queue[Message | None] = asyncio.Queue()
    fail = lambda: replies.put_nowait(None)  # noqa: E731 - a name for adding and removing
    inbox = f"{bus.inbox}.chat.{token_hex(4)}"
    subscription = await bus.subscribe(inbox, replies.put_nowait)
    bus.on_disconnect.append(fail)
    open_id = ""
    try:
        data = json.dumps(body | {"stream": True}).encode()
        await bus.publish(CHAT_SUBJECT, data, reply=inbox, headers=envelope.headers() or None)
        while True:
            async with asyncio.timeout(envelope.remaining(DEFAULT_DEADLINE_S)):
                message = await replies.get()
            if message is None:
                raise BusUnavailable("the connection to NATS was lost before the answer was complete")
            if message.status == "503":
                raise Unavailable(f"no gateway answers on {CHAT_SUBJECT}; start one: {WAY_OUT}")
            if message.header(ERROR):
                open_id = ""
                raise _error(message)
            if not message.data:
                open_id = ""
                return
            chunk = json.loads(message.data)
            open_id = chunk.get("id", "")
            yield chunk
    except TimeoutError as error:
        raise DeadlineExceeded("the answer was not complete before the deadline") from error
    finally:
        bus.on_disconnect.remove(fail)
        if open_id:
            with suppress(OrchestraError):  # without NATS the cancel cannot be sent
                bus.post(CHAT_CANCEL_SUBJECT, open_id.encode())
        await subscription.unsubscribe()


async def chat_whole(bus: Bus, body: dict[str, Any], envelope: Envelope) -> dict[str, Any]:
    """The whole answer to a body of /v1/chat/completions, as the OpenAI API has it. Raises as `chat` does."""
    seconds = envelope.remaining(DEFAULT_DEADLINE_S)
    return await _call(bus, CHAT_SUBJECT, body, envelope.headers() or None, seconds)


async def jobs_call(
    bus: Bus, verb: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """The answer of `orchestra.jobs.<verb>`. Raises the error the cluster answered, `Unavailable` when no
    gateway listens, `BusUnavailable`."""
    return await _call(bus, f"orchestra.jobs.{verb}", body, headers)


async def feedback_call(bus: Bus, body: dict[str, Any]) -> dict[str, Any]:
    """The answer of `orchestra.feedback`. Raises as `jobs_call` does."""
    return await _call(bus, "orchestra.feedback", body, None)


async def admin_call(
    bus: Bus, verb: str, body: dict[str, Any], caller: str = "", timeout_s: float = CALL_TIMEOUT_S
) -> dict[str, Any]:
    """The answer of `orchestra.admin.<verb>`; `caller` is the operator's name, for the audit. Raises as
    `jobs_call` does."""
    headers = {CALLER: caller} if caller else None
    return await _call(bus, f"orchestra.admin.{verb}", body, headers, timeout_s)


async def _call(
    bus: Bus,
    subject: str,
    body: dict[str, Any],
    headers: dict[str, str] | None,
    timeout_s: float = CALL_TIMEOUT_S,
) -> dict[str, Any]:
    data = json.dumps(body).encode()
    try:
        answer = await bus.request(subject, data, headers=headers, timeout=timeout_s)
    except NoResponders as error:
        raise Unavailable(f"no gateway answers on {subject}; start one: {WAY_OUT}") from error
    if answer.header(ERROR):
        raise _error(answer)
    found: dict[str, Any] = json.loads(answer.data)
    return found


def _error(message: Message) -> OrchestraError:
    """The error of a service answer, from its OpenAI-shaped body or, failing that, its headers."""
    text = message.header(ERROR)
    status = int(message.header(ERROR_CODE, "500"))
    try:
        error = json.loads(message.data)["error"]
        body = ErrorBody(
            code=error.get("code") or "internal_error",
            message=error["message"],
            param=error.get("param"),
            status=status,
        )
    except (ValueError, KeyError, TypeError):
        return InternalError(text)
    return from_body(body)
