"""Feedback of users on answers.

The request is `{"run", "score", "comment"?}`: the run as `X-Orchestra-Run` or the answer's `id` names it, and
a score from -1 to 1, or `good` or `bad`.
"""

from __future__ import annotations

from pydantic_core import to_json

from actors.gateway.gateway import Gateway
from actors.gateway.operation import CallContext, Reply
from actors.learning.feedback import Feedback, FeedbackCounter


class FeedbackApi:
    """The handler of the feedback operation."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.counter = FeedbackCounter(gateway.bus)

    async def give(self, feedback: Feedback, call: CallContext) -> Reply:
        """Count the caller's feedback. Raises what `FeedbackCounter.give` raises, `NoSuchRun` also for a run
        of another caller."""
        authenticator, caller = self.gateway.authenticator, call.caller
        if not caller or not authenticator.named:
            result = await self.counter.submit(feedback, by=caller)
        else:
            namespace = authenticator.namespace(caller)
            result = await self.counter.submit(
                feedback, lambda other: authenticator.namespace(other) == namespace, by=caller
            )
        return Reply(body=to_json(result, exclude_none=True))
