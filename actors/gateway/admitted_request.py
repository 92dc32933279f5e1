"""A request that was admitted: its work, and how its response is encoded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from actors.gateway.bodies import CacheOptions, ChatBody, CompletionBody, WorkBody
from actors.gateway.choices import MAX_CHOICES, ChoicesEncoder
from actors.gateway.fields import Fields
from actors.gateway.request_log import RequestOutcome
from actors.openai_api.chat import ChatEncoder
from actors.openai_api.completion import CompletionEncoder
from actors.openai_api.encoder import ResponseEncoder, TextEncoder
from orchestration.errors import InvalidRequest
from orchestration.messages import Generation, Run, Work

DEFAULT_CACHE = CacheOptions()
MAX_NAME = 128
"""Maximum characters of a user or a session in traces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmittedRequest:
    """A request that was admitted: its work, the encoder of its response, and its cache options."""

    work: Work
    encoder: ResponseEncoder
    """Encodes the response in the format of the API."""
    stream: bool
    """Whether the client asked for a stream."""
    cache: CacheOptions = DEFAULT_CACHE
    notes: tuple[str, ...] = ()
    """Warnings for the client."""
    others: tuple[Generation, ...] = ()
    """The work of the further choices of the same request."""
    repeats: int = 1
    """Choices of each prompt."""
    outcome: RequestOutcome = field(default_factory=RequestOutcome)
    """What has been seen of the response."""
    user: str = ""
    """The caller's own user, from the body's `user`; '' if it names none."""
    session: str = ""
    """The caller's conversation, from `metadata.session_id` of the body; '' if it names none."""


class UserFields(TypedDict, total=False):
    """Fields of `AdmittedRequest` that say whose request it is."""

    user: str
    session: str


def text_request(
    prompts: Sequence[Work],
    encoder: type[ChatEncoder | CompletionEncoder],
    body: ChatBody | CompletionBody,
    fields: Fields,
) -> AdmittedRequest:
    """Make the request of text work; its choices are those of all prompts, one after another."""
    repeats = body.n or 1
    count = len(prompts) * repeats
    if count > MAX_CHOICES:
        raise InvalidRequest(
            f"n: {repeats} choices for {len(prompts)} prompts are {count}; the limit is {MAX_CHOICES}",
            param="n",
        )
    first, created = prompts[0], int(time.time())

    def new_encoder() -> TextEncoder:
        made = encoder(
            first.id,
            body.model,
            created,
            include_usage=body.include_usage,
            logprobs=first.sampling.logprobs,
        )
        made.notes = fields.notes
        return made

    if count == 1:
        response_encoder: ResponseEncoder = new_encoder()
    else:
        response_encoder = ChoicesEncoder(
            [new_encoder() for _ in range(count)], repeats=repeats, include_usage=body.include_usage
        )
    others = [_choice(prompts[index // repeats], index, index % repeats) for index in range(1, count)]
    return AdmittedRequest(
        work=first,
        encoder=response_encoder,
        stream=bool(body.stream),
        cache=body.cache or DEFAULT_CACHE,
        notes=fields.notes,
        others=tuple(others),
        repeats=repeats,
        **user_fields(body),
    )


def user_fields(body: WorkBody) -> UserFields:
    """The user and the session that a body names, for traces."""
    extra = body.extra
    if not extra:
        return {}
    found: UserFields = {}
    if isinstance(user := extra.get("user"), str):
        found["user"] = user[:MAX_NAME]
    metadata = extra.get("metadata")
    if isinstance(metadata, dict) and isinstance(session := metadata.get("session_id"), str):
        found["session"] = session[:MAX_NAME]
    return found


def _choice(work: Work, index: int, repeat: int) -> Generation:
    """Return the work of another choice. Each choice of a prompt has the next seed, so that they differ."""
    assert not isinstance(work, Run)
    sampling = work.sampling
    if sampling.seed is not None and repeat:
        seed = sampling.seed + repeat if sampling.seed < 2**63 - MAX_CHOICES else sampling.seed - repeat
        sampling = sampling.model_copy(update={"seed": seed})
    return work.model_copy(update={"id": f"{work.id}-{index}", "sampling": sampling})
