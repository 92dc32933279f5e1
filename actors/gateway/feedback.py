"""What users say of answers: `POST /v1/feedback`, and `orchestra.feedback` over NATS.

Both take `{"run", "score", "comment"?}`: the run as `X-Orchestra-Run` or the answer's `id` names it, and a
score from -1 to 1, or `good` or `bad`. Over NATS who names no caller, as the command line does, may speak of
every run, as of every job.
"""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import to_json

from actors.gateway.gateway import Gateway
from actors.gateway.http_context import HttpContext
from actors.learning.feedback import Feedback, FeedbackCounter, FeedbackResult
from actors.openai_api.encoder import error_json
from actors.runtime.actor import Actor
from actors.runtime.envelope import current_envelope
from actors.runtime.service import Endpoint, decode_model, encode_model, invalid_request
from actors.runtime.system import ActorRef

PATH = "/v1/feedback"
SUBJECT = "orchestra.feedback"
MAX_FEEDBACK_BYTES = 16_384


class FeedbackApi:
    """What both faces share."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.desk = FeedbackCounter(gateway.bus)

    async def give(self, feedback: Feedback, caller: str) -> FeedbackResult:
        """Count what `caller` says; '' may speak of every run. Raises what `FeedbackCounter.give` raises."""
        authenticator = self.gateway.authenticator
        if not caller or not authenticator.named:
            return await self.desk.give(feedback, by=caller)
        mine = authenticator.namespace(caller)
        return await self.desk.give(feedback, lambda other: authenticator.namespace(other) == mine, by=caller)

    async def post(self, context: HttpContext) -> None:
        raw = await context.body(MAX_FEEDBACK_BYTES, self.gateway.settings.body_timeout_s)
        try:
            feedback = Feedback.model_validate_json(raw)
        except ValidationError as error:
            raise invalid_request(error) from error
        counted = await self.give(feedback, context.caller)
        await context.answer(200, to_json(counted, exclude_none=True))


class FeedbackService(Actor):
    """Answers `orchestra.feedback`."""

    concurrency = 64
    mailbox_size = 1_024

    def __init__(self, front: FeedbackApi) -> None:
        self.front = front

    async def on_give(self, message: Feedback) -> FeedbackResult:
        said = current_envelope.get().caller
        return await self.front.give(message, self.front.gateway.authenticator.of_nats(said) if said else "")


def feedback_endpoint(ref: ActorRef) -> Endpoint:
    """Shared by all gateways."""
    return Endpoint(
        name="feedback",
        subject=SUBJECT,
        ref=ref,
        decode=decode_model(Feedback),
        encode=encode_model,
        encode_error=error_json,
        queue="orchestra",
        streams=False,
    )
