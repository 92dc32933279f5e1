"""Makes the model call of a step: the role's prompt, parameters and model around what was asked."""

from __future__ import annotations

from actors.cluster.registry import Registry
from orchestration.messages import ChatGeneration, Continuation, Generation
from orchestration.patterns import GenerationRequest
from orchestration.roles import Role, choose_model
from orchestration.small_models import is_small


def role_generation(
    role: Role, request: GenerationRequest, registry: Registry, generation_id: str
) -> Generation:
    """What the model is asked in the step `request` of `role`. Raises what `choose_model` raises."""
    cards = registry.cards
    card = registry.card(request.model) if request.model is not None else None
    if request.model is not None and card is not None:  # a fallback may answer for it
        cards = cards | {request.model: card}
    model = choose_model(request.model, role.models, cards, registry.known)
    small = is_small(cards[model])
    return ChatGeneration(
        id=generation_id,
        model=model,
        messages=role.before(request.messages, small=small),
        sampling=request.sampling.over(role.sampling_of(small=small)),
        guide=request.guide,
        priority=request.priority,
        labels=request.labels,
        extra=request.extra,
        continuation=Continuation(text=request.prefix, tokens=request.prefix_tokens)
        if request.prefix
        else None,
    )
