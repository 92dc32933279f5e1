"""`chat.completion` and `chat.completion.chunk`."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic_core import to_json

from actors.openai_api.encoder import Event, TextEncoder, finish_reason, usage_json
from orchestration.messages import Progress, StreamEnd, TextDelta, TokenLogprob, ToolCall, Usage


class ChatEncoder(TextEncoder):
    """Builds the prefix of a chunk once, so that a token costs one small JSON string.

    The first chunk of a stream has the role, since clients need it for the type of the message. Progress of a
    run is a chunk with an empty delta and an `orchestra` field, which OpenAI's clients ignore. Tool calls
    and a refusal are complete in the last chunk of a stream. Reasoning has both names that clients know,
    `reasoning_content` and `reasoning`. A chunk whose `orchestra` has `replaces` replaces the text before it,
    except its first `replaces` characters.
    """

    def __init__(
        self, work_id: str, model: str, created: int, *, include_usage: bool, logprobs: bool
    ) -> None:
        super().__init__(work_id, model, created, include_usage=include_usage, logprobs=logprobs)
        self._role = b'"role":"assistant",'

    @cached_property
    def _head(self) -> bytes:
        fields = {
            "id": f"chatcmpl-{self.work_id}",
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
        }
        return to_json(fields)[:-1]

    @cached_property
    def _open(self) -> bytes:
        return b'%b,"choices":[{"index":%d,"delta":{' % (self._head, self.index)

    def encode_opening(self) -> tuple[bytes, ...]:
        return (self._about({"run": self.work_id}),)

    def encode_event(self, event: Event) -> tuple[bytes, ...]:
        if isinstance(event, TextDelta):
            role, self._role = self._role, b""
            text = b'"content":%b' % to_json(event.text)
            if event.reasoning:
                before = text + b"," if role or event.text else b""
                reasoning = to_json(event.reasoning)
                text = b'%b"reasoning_content":%b,"reasoning":%b' % (before, reasoning, reasoning)
            logprobs = to_json(chat_logprobs(event.logprobs)) if event.logprobs else b"null"
            orchestra = b',"orchestra":{"replaces":%d}' % event.replaces if event.replaces else b""
            return (
                b'%b%b%b},"logprobs":%b,"finish_reason":null}]%b}'
                % (self._open, role, text, logprobs, orchestra),
            )
        if isinstance(event, Progress):
            fields: dict[str, Any] = {"progress": event.text}
            if event.step is not None:
                fields["step"] = event.step.model_dump(mode="json", exclude_none=True)
            return (self._about(fields),)
        if isinstance(event, StreamEnd):
            return self._last(event)
        return ()

    def _about(self, fields: dict[str, Any]) -> bytes:
        """Return a chunk without text, with an `orchestra` field."""
        role, self._role = (b'"role":"assistant","content":""' if self._role else b""), b""
        return b'%b%b},"logprobs":null,"finish_reason":null}],"orchestra":%b}' % (
            self._open,
            role,
            to_json(fields),
        )

    def _last(self, ended: StreamEnd) -> tuple[bytes, ...]:
        reason = to_json(finish_reason(ended))
        delta: dict[str, Any] = {}
        if self._role:
            delta = {
                "role": "assistant",
                "content": None if ended.finish.calls or ended.finish.refusal else "",
            }
        if ended.finish.refusal:
            delta["refusal"] = ended.finish.refusal
        if ended.finish.calls:
            delta["tool_calls"] = [
                {"index": index} | tool_call_json(call) for index, call in enumerate(ended.finish.calls)
            ]
        last = b'%b%b,"logprobs":null,"finish_reason":%b}],"orchestra":%b}' % (
            self._open[:-1],
            to_json(delta),
            reason,
            to_json(self.orchestra(ended)),
        )
        if not self.include_usage:
            return (last,)
        return last, self.encode_usage(ended.finish.usage)

    def encode_usage(self, usage: Usage) -> bytes:
        return b'%b,"choices":[],"usage":%b}' % (self._head, to_json(usage_json(usage)))

    def encode_full(self) -> bytes:
        ended = self.end()
        text, reasoning = self.joined.text, self.joined.reasoning
        has_other_content = bool(ended.finish.calls or ended.finish.refusal or reasoning)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if has_other_content and not text else text,
            "refusal": ended.finish.refusal or None,
        }
        if reasoning:
            message |= {"reasoning_content": reasoning, "reasoning": reasoning}
        if ended.finish.calls:
            message["tool_calls"] = [tool_call_json(call) for call in ended.finish.calls]
        choice = {
            "index": self.index,
            "message": message,
            "logprobs": chat_logprobs(self.joined.logprobs) if self.logprobs else None,
            "finish_reason": finish_reason(ended),
        }
        return to_json(
            {
                "id": f"chatcmpl-{self.work_id}",
                "object": "chat.completion",
                "created": self.created,
                "model": self.model,
                "choices": [choice],
                "usage": usage_json(ended.finish.usage),
                "orchestra": self.orchestra(ended),
            }
        )


def chat_logprobs(tokens: tuple[TokenLogprob, ...] | list[TokenLogprob]) -> dict[str, Any]:
    """Return OpenAI's `logprobs` of a chat choice; the tokens have its fields already."""
    return {"content": tokens, "refusal": None}


def tool_call_json(call: ToolCall) -> dict[str, Any]:
    """Return a tool call as OpenAI's API has it."""
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
