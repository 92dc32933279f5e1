"""Who votes: which models, how often, in what order, and what each is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.messages import ChatMessage, Run, Sampling
from orchestration.patterns.consensus import AnswerKind
from orchestration.patterns.conversation import last_question_index
from orchestration.patterns.prompt_texts import THINK, THINK_BRIEFLY
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.single import final_sampling
from orchestration.trust.families import base_name

MAX_VOTERS = 16
"""Voters of one vote."""

ENDINGS = {
    AnswerKind.NUMBER: "End with: The answer is NUMBER.",
    AnswerKind.CHOICE: "Answer with the letter of the right option and its words.",
}
"""How an answer has to be so that it can be counted. Small models are the worse for thinking aloud: of small
sums and choices SmolLM2-135M has a fifth right where it is told to, and a third where it is not."""

_SAYS_HOW = re.compile(
    r"\b(?:answer|reply|respond|write|give|state|end|finish|output)\b[^.?!\n]{0,40}\b(?:with|only|just|as|in|by)\b",
    re.IGNORECASE,
)
"""A question that says itself how to answer: told twice and differently, small models guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voter:
    """One of a vote. `model` is None where the coordinator's role chooses it."""

    number: int
    model: str | None
    weight: float
    sampling: Sampling

    @property
    def name(self) -> str:
        """Of its step."""
        return f"voice {self.number}"

    def __str__(self) -> str:
        return f"{self.name} ({self.model})" if self.model else self.name


def choose_voters(
    run: Run, context: RunContext, models: Sequence[str], samples: int, temperature: float
) -> list[Voter]:
    """Each model once, and in turns again up to `samples` voters. Without `models` the caller's model votes,
    else the panel of those that live which is expected to do best: see `orchestration.trust.panel`.

    A model that votes once keeps its own temperature; one that votes again is a sample at `temperature`.
    """
    named: list[str | None] = [*models] or [run.model] if run.model else [*models]
    named = named or [*context.panel(MAX_VOTERS)] or [None]
    voting = [named[at % len(named)] for at in range(max(len(named), samples))][:MAX_VOTERS]
    context.taking_part |= {name for name in voting if name is not None}
    context.trust = context.trust.among(name for name in voting if name is not None)
    seed, alike = run.sampling.seed, one_model(voting)
    voters = []
    for number, model in enumerate(voting, 1):
        said: dict[str, object] = {"logprobs": False, "top_logprobs": 0}
        if voting.count(model) > 1:
            said["temperature"] = temperature
        if seed is not None:
            said["seed"] = seed + number - 1
        sampling = final_sampling(run, context.limits).model_copy(update=said)
        weight = 1.0 if alike or model is None else context.trust.weight(model)
        voters.append(Voter(number=number, model=model, weight=weight, sampling=sampling))
    return voters


def one_model(models: Sequence[str | None]) -> bool:
    """Whether all are samples of one model, under whatever names."""
    return len({base_name(model) if model is not None else None for model in models}) <= 1


def instructed(
    messages: tuple[ChatMessage, ...], asked: AnswerKind, *, think: bool, small: bool = True
) -> tuple[ChatMessage, ...]:
    """The conversation with what every voter is told: whether to think aloud, which `small` models do in few
    words, and how to answer. The same for all voters and before the conversation, so that it is read once."""
    told = [THINK_BRIEFLY if small else THINK] if think else []
    if asked in ENDINGS and not _SAYS_HOW.search(messages[last_question_index(messages)].content):
        told.append(ENDINGS[asked])
    return (ChatMessage(role="system", content=" ".join(told)), *messages) if told else messages
