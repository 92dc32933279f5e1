"""The voters of a vote: their models and samples, their order, and their instructions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.messages import ChatMessage, Run, Sampling
from orchestration.patterns.consensus import AnswerKind
from orchestration.patterns.conversation import last_question_index
from orchestration.patterns.prompt_texts import THINK, THINK_BRIEFLY
from orchestration.patterns.run_context import RunContext
from orchestration.trust.families import base_name

MAX_VOTERS = 16
"""Maximum voters of one vote."""

ENDINGS = {
    AnswerKind.NUMBER: "End with: The answer is NUMBER.",
    AnswerKind.CHOICE: "Answer with the letter of the right option and its words.",
}
"""Instructions to end an answer in a form that can be counted. Small models do worse with step-by-step
instructions: SmolLM2-135M then gets a fifth of small sums and choices right, and a third without."""

_SAYS_HOW = re.compile(
    r"\b(?:answer|reply|respond|write|give|state|end|finish|output)\b[^.?!\n]{0,40}\b(?:with|only|just|as|in|by)\b",
    re.IGNORECASE,
)
"""A question that itself says how to answer gets no second instruction, which confuses small models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voter:
    """One voter. `model` is None where the coordinator's role chooses the model."""

    number: int
    model: str | None
    weight: float
    sampling: Sampling

    @property
    def name(self) -> str:
        """The name of its step."""
        return f"voice {self.number}"

    def __str__(self) -> str:
        return f"{self.name} ({self.model})" if self.model else self.name


def choose_voters(
    run: Run, context: RunContext, models: Sequence[str], samples: int, temperature: float
) -> list[Voter]:
    """The voters of a run: each model once, then again in turns up to `samples` voters. Without `models` the
    caller's model votes, else the panel of live models that is expected to do best: see
    `orchestration.trust.panel`.

    A model that votes once keeps its own temperature; one that votes more often is sampled at `temperature`.
    """
    named: list[str | None] = [*models] or [run.model] if run.model else [*models]
    named = named or [*context.panel(MAX_VOTERS)] or [None]
    voting = [named[at % len(named)] for at in range(max(len(named), samples))][:MAX_VOTERS]
    context.restrict_to([name for name in voting if name is not None])
    seed, alike = run.sampling.seed, one_model(voting)
    voters = []
    for number, model in enumerate(voting, 1):
        updates: dict[str, object] = {"logprobs": False, "top_logprobs": 0}
        if voting.count(model) > 1:
            updates["temperature"] = temperature
        if seed is not None:
            updates["seed"] = seed + number - 1
        sampling = run.sampling.model_copy(update=updates)
        weight = 1.0 if alike or model is None else context.trust.weight(model)
        voters.append(Voter(number=number, model=model, weight=weight, sampling=sampling))
    return voters


def one_model(models: Sequence[str | None]) -> bool:
    """Whether all are samples of one model, under any of its names."""
    return len({base_name(model) if model is not None else None for model in models}) <= 1


def with_instructions(
    messages: tuple[ChatMessage, ...], kind: AnswerKind, *, think: bool, small: bool = True
) -> tuple[ChatMessage, ...]:
    """The conversation after the instructions for every voter: whether to think aloud, which `small` models
    do in few words, and how to answer. They come first and are the same for all, so their prefix is computed
    once."""
    instructions = [THINK_BRIEFLY if small else THINK] if think else []
    if kind in ENDINGS and not _SAYS_HOW.search(messages[last_question_index(messages)].content):
        instructions.append(ENDINGS[kind])
    return (
        (ChatMessage(role="system", content=" ".join(instructions)), *messages) if instructions else messages
    )
