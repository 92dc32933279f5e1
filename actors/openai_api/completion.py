"""`text_completion`, complete or as a stream."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

from actors.openai_api.encoder import Event, TextEncoder, finish_reason, usage_json
from orchestration.messages import StreamEnd, TextDelta, TokenLogprob, Usage


class CompletionEncoder(TextEncoder):
    """The offsets of log probabilities count characters from the start of the answer. As in OpenAI's API, the
    sampled token is always among the most likely ones."""

    def __init__(
        self, work_id: str, model: str, created: int, *, include_usage: bool, logprobs: bool
    ) -> None:
        super().__init__(work_id, model, created, include_usage=include_usage, logprobs=logprobs)
        self._offset = 0
        self.echo = ""
        """The prompt, if the answer is to begin with it."""

    def encode_event(self, event: Event) -> tuple[bytes, ...]:
        if isinstance(event, TextDelta):
            logprobs = self._logprobs(event.logprobs) if event.logprobs else None
            echo, self.echo = self.echo, ""
            orchestra = {"orchestra": {"replaces": event.replaces}} if event.replaces else None
            return (self._object([self._choice(echo + event.text, logprobs, None)], orchestra),)
        if not isinstance(event, StreamEnd):
            return ()
        last = self._object(
            [self._choice(self.echo, None, finish_reason(event))], {"orchestra": self.orchestra(event)}
        )
        if not self.include_usage:
            return (last,)
        return last, self.encode_usage(event.finish.usage)

    def encode_usage(self, usage: Usage) -> bytes:
        return self._object([], {"usage": usage_json(usage)})

    def encode_full(self) -> bytes:
        ended = self.end()
        logprobs = self._logprobs(self.joined.logprobs) if self.logprobs else None
        choice = self._choice(self.echo + self.joined.text, logprobs, finish_reason(ended))
        return self._object(
            [choice], {"usage": usage_json(ended.finish.usage), "orchestra": self.orchestra(ended)}
        )

    def _choice(self, text: str, logprobs: dict[str, Any] | None, reason: str | None) -> dict[str, Any]:
        return {"index": self.index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _object(self, choices: list[dict[str, Any]], more: dict[str, Any] | None = None) -> bytes:
        head = {
            "id": f"cmpl-{self.work_id}",
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        return to_json(head | more if more else head)

    def _logprobs(self, tokens: tuple[TokenLogprob, ...] | list[TokenLogprob]) -> dict[str, Any]:
        offsets: list[int] = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token.token)
        return {
            "tokens": [token.token for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [
                {top.token: top.logprob for top in token.top_logprobs} | {token.token: token.logprob}
                for token in tokens
            ],
            "text_offset": offsets,
        }
