"""`chat.completion` and `chat.completion.chunk`."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic_core import to_json

from actors.openai_api.encoder import Event, TextEncoder, finish_reason, usage_json
from orchestration.messages import Progress, StreamEnd, TextDelta, TokenLogprob, ToolCall, Usage


class ChatEncoder(TextEncoder):
    """The prefix of a chunk is built once, so a token costs one small JSON string.

    The first chunk of a stream has the role, whatever else it brings: clients tell the kind of the message
    from it. Progress of a run travels as a chunk with an empty delta and an `orchestra` field, which OpenAI's
    clients read as "nothing new". Tool calls and a refusal come whole, in the last chunk of a stream.
    Reasoning has both names that clients know, `reasoning_content` and `reasoning`. A chunk whose `orchestra`
    has `replaces` takes the place of the text before it, but for so many of its first characters.
    """

    def __init__(
        self, work_id: str, model: str, created: int, *, include_usage: bool, logprobs: bool
    ) -> None:
        super().__init__(work_id, model, created, include_usage=include_usage, logprobs=logprobs)
        head = to_json(
            {
                "id": f"chatcmpl-{work_id}",
                "object": "chat.completion.chunk",
                "created": created,
                "model": model,
            }
        )
        self._head = head[:-1]
        self._role = b'"role":"assistant",'

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
                thought = to_json(event.reasoning)
                text = b'%b"reasoning_content":%b,"reasoning":%b' % (before, thought, thought)
            logprobs = to_json(chat_logprobs(event.logprobs)) if event.logprobs else b"null"
            ours = b',"orchestra":{"replaces":%d}' % event.replaces if event.replaces else b""
            return (
                b'%b%b%b},"logprobs":%b,"finish_reason":null}]%b}' % (self._open, role, text, logprobs, ours),
            )
        if isinstance(event, Progress):
            said: dict[str, Any] = {"progress": event.text}
            if event.step is not None:
                said["step"] = event.step.model_dump(mode="json", exclude_none=True)
            return (self._about(said),)
        if isinstance(event, StreamEnd):
            return self._last(event)
        return ()

    def _about(self, said: dict[str, Any]) -> bytes:
        """A chunk that says nothing of the answer."""
        role, self._role = (b'"role":"assistant","content":""' if self._role else b""), b""
        return b'%b%b},"logprobs":null,"finish_reason":null}],"orchestra":%b}' % (
            self._open,
            role,
            to_json(said),
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
        says_it_otherwise = bool(ended.finish.calls or ended.finish.refusal or reasoning)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if says_it_otherwise and not text else text,
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
    """OpenAI's `logprobs` of a chat choice; the tokens already have its fields."""
    return {"content": tokens, "refusal": None}


def tool_call_json(call: ToolCall) -> dict[str, Any]:
    """OpenAI's shape of a tool call."""
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
