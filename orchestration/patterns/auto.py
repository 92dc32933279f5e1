"""`orchestra/auto`: looks at the question, and chooses the pattern and the parameters for its answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import replace

from pydantic import ConfigDict, Field

from orchestration.bandit.bandit import ArmChoice, best
from orchestration.errors import InvalidRequest, OrchestraError
from orchestration.messages import ChatMessage, Run, Sampling, TextDelta
from orchestration.patterns.base import StepResult
from orchestration.patterns.clipping import estimate_tokens
from orchestration.patterns.conversation import last_question_index
from orchestration.patterns.definition import PatternSettings, pattern
from orchestration.patterns.grounding_context import PLAIN
from orchestration.patterns.run_context import COORDINATOR, RunContext
from orchestration.patterns.specialist_answer import RESEARCH
from orchestration.patterns.specialist_step import best_match
from orchestration.patterns.voting import MAX_VOTERS
from orchestration.query_analysis.analysis import Analysis, analyse
from orchestration.query_analysis.chores import (
    is_chore,
    is_form_alone,
    is_short_chore,
    is_summary_of_what_it_names,
)
from orchestration.query_analysis.features import Kind
from orchestration.query_analysis.profiles import ENSEMBLE, PRECISE, SINGLE, Arm, Candidates, arms

MIN_PASSAGE_SIMILARITY = 0.55
"""Cosine from which a passage is taken to answer a question: passages that do have 0.34 to 0.84, the nearest
passages for a question about something else 0.08 to 0.2."""
MIN_KIND_CONFIDENCE = 0.6
"""Confidence from which the kind of a question is taken without looking at the question before it."""
SHORT_TOKENS = 192
"""Maximum tokens of a title, tags or the like, where the caller sets no `max_tokens`: small models seldom end
such texts by themselves."""
MAX_MODELS = 8
"""Maximum models that may be chosen to answer alone; the most trusted live ones."""
MIN_TEAM_TOKENS = 1500
"""A smaller budget is best spent on one answer."""


class AutoParameters(Sampling):
    """`Sampling`, with unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AutoPatternSettings(PatternSettings):
    """`patterns` are the patterns it may choose from besides `single`, including users' own; None for all
    built-in ones. By kind of question, the first live model of `models` is preferred, and `parameters`
    override those of the profile."""

    patterns: tuple[str, ...] | None = Field(default=None, max_length=32)
    models: dict[Kind, tuple[str, ...]] = Field(default_factory=dict)
    parameters: dict[Kind, AutoParameters] = Field(default_factory=dict)


@pattern("auto", settings=AutoPatternSettings)
async def auto(
    run: Run, context: RunContext, settings: AutoPatternSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """Looks at the question and chooses the pattern and the parameters that do best for its kind.

    Where several models live, it also chooses which of them answers, or whether several do: by how far each
    is trusted at this kind of question, and by cost. The caller's own parameters and model override the
    choice. The report says what was chosen, and why.
    """
    analysis = analyse_question(run.messages)
    known = {name: each for name, each in context.facts.patterns.items() if name != "auto"}
    model = run.model or _preferred(context, analysis, settings)
    settled = model is not None or COORDINATOR in context.facts.agents_with_models
    candidates = None if settled else _candidates(run, context, analysis)
    several = candidates is not None and len(candidates.models) > 1
    allowed = _allowed(run, settings, known, several=several)
    ways = arms(analysis, allowed, allowed & set(settings.patterns or ()), candidates)
    if is_chore(_instructions(run.messages)) and ENSEMBLE not in allowed:
        ways = tuple(replace(arm, profile=PRECISE) for arm in ways if arm.model) or (
            Arm(profile=PRECISE, pattern=SINGLE, prior=ways[0].prior),
        )
    chosen = await _from_documents(run, context, analysis, ways[0]) if RESEARCH in allowed else None
    if chosen is None:
        chosen = (
            best(ways)
            if context.facts.advisor is None
            else await context.facts.advisor.choose(run, analysis, ways)
        )
    arm = chosen.arm
    model = arm.model or model
    context.report["auto"] = report = {
        "kind": analysis.kind,
        "confidence": round(analysis.confidence, 3),
        "difficulty": analysis.level,
        "tokens": analysis.tokens,
        "pattern": arm.pattern,
        "profile": arm.profile.name,
        "model": model or "",
        "reason": chosen.reason,
    }
    await context.event("choice", question=analysis.kind, **{k: v for k, v in report.items() if k != "kind"})
    how = ", ".join(each for each in (arm.pattern, arm.model, arm.profile.name) if each)
    await context.progress(f"auto chose {how}: {_looks(analysis)} ({chosen.reason})")
    tuned = _tuned(run, context, analysis, chosen.arm, model, settings)
    context.use_run(tuned, audit=chosen.audit)
    try:
        async with aclosing(known[arm.pattern].inside(context.run, context)) as items:
            async for item in items:
                yield item
    except OrchestraError as error:
        if context.facts.advisor is not None:
            context.facts.advisor.failed(error)
        raise


def analyse_question(messages: Sequence[ChatMessage]) -> Analysis:
    """The analysis of the last question. A question that depends on the one before it, such as "shorter,
    please", has the kind of that one, and its own difficulty. Raises `InvalidRequest` when nothing is
    asked."""
    last = last_question_index(messages)
    found = analyse(messages[last].content)
    before = [each.content for each in messages[:last] if each.role == "user" and each.content.strip()]
    if not before or (found.kind != "conversation" and found.confidence >= MIN_KIND_CONFIDENCE):
        return found
    leaning = analyse(f"{before[-1]}\n{messages[last].content}")
    return replace(leaning, difficulty=found.difficulty, tokens=max(found.tokens, leaning.tokens))


def _allowed(run: Run, settings: AutoPatternSettings, known: Collection[str], *, several: bool) -> set[str]:
    """The patterns that may be chosen. With a fixed form of answer, a chore such as a title for a chat, or a
    small budget, a team can add little. A summary may be one of documents; a question whose answer must be
    JSON may go to `several` models."""
    for name in settings.patterns or ():
        if name not in known:
            raise InvalidRequest(
                f"orchestra.settings.patterns: no pattern {name!r}; there are {', '.join(sorted(known))}",
                param="orchestra.settings.patterns",
            )
    budget = run.budget
    small = (budget.tokens is not None and budget.tokens < MIN_TEAM_TOKENS) or (budget.calls or 2) < 2
    if run.guide is not None or small:
        return {SINGLE}
    allowed = set(known) if settings.patterns is None else {SINGLE, *settings.patterns}
    instructions = _instructions(run.messages)
    if not is_chore(instructions):
        return allowed
    if several and is_form_alone(instructions):
        return allowed & {SINGLE, ENSEMBLE}
    return allowed & {SINGLE, RESEARCH} if is_summary_of_what_it_names(instructions) else {SINGLE}


def _preferred(context: RunContext, analysis: Analysis, settings: AutoPatternSettings) -> str | None:
    """The first live model that the settings name for the kind of question."""
    alive = {card.name for card in context.models}
    return next((name for name in settings.models.get(analysis.kind, ()) if name in alive), None)


def _candidates(run: Run, context: RunContext, analysis: Analysis) -> Candidates:
    """The most trusted live models, and the tokens of an answer of each."""
    prompt_tokens = sum(estimate_tokens(message.content) for message in run.messages)
    models = context.ranked()[:MAX_MODELS]
    panel = context.panel(MAX_VOTERS)
    known = {
        name: context.facts.lengths.expected(context.facts.question_kind, name) or analysis.tokens
        for name in {*models, *panel}
    }
    tokens = {name: prompt_tokens + length for name, length in known.items()}
    return Candidates(models=tuple(models), panel=tuple(panel), tokens=tokens)


def _instructions(messages: Sequence[ChatMessage]) -> str:
    """The caller's instructions: the last question, and the system messages, where web pages put them."""
    system = [each.content for each in messages if each.role == "system"]
    return "\n".join([*system, _last_question(messages)])


def _last_question(messages: Sequence[ChatMessage]) -> str:
    return messages[last_question_index(messages)].content


async def _from_documents(run: Run, context: RunContext, analysis: Analysis, first: Arm) -> ArmChoice | None:
    """The research pattern, where the documents have a passage that clearly fits the question."""
    if analysis.kind in ("conversation", "creative") or RESEARCH not in context.agents:
        return None
    hit = await best_match(context, RESEARCH, run.messages[last_question_index(run.messages)].content)
    if hit < MIN_PASSAGE_SIMILARITY:
        return None
    arm = Arm(profile=first.profile, pattern=RESEARCH, prior=hit)
    return ArmChoice(arm, f"the documents have a passage that fits, at {hit:.2f}")


def _looks(analysis: Analysis) -> str:
    if analysis.kind == "conversation":
        return "small talk"
    article = "an" if analysis.level == "easy" else "a"
    return f"{article} {analysis.level} question of kind {analysis.kind}"


def _tuned(
    run: Run,
    context: RunContext,
    analysis: Analysis,
    arm: Arm,
    model: str | None,
    settings: AutoPatternSettings,
) -> Run:
    """The run with the chosen model, and for a small model with the chosen parameters where the caller sets
    none; other models have defaults of their own."""
    max_tokens = context.limits.final_tokens
    if any(is_short_chore(each) for each in (_instructions(run.messages), _last_question(run.messages))):
        max_tokens = min(max_tokens, SHORT_TOKENS)
    profile = Sampling()
    if context.is_small(model):
        profile = arm.profile.sampling_for(analysis, max_tokens)
        profile = PLAIN.over(profile) if context.brings_text else profile
    if analysis.kind in settings.parameters:
        profile = settings.parameters[analysis.kind].over(profile)
    return run.model_copy(update={"sampling": run.sampling.over(profile), "model": model})
