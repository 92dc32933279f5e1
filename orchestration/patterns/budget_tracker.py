"""What a run has used of its budget, and what its next step may use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from orchestration.errors import BudgetExceeded
from orchestration.messages import Budget, ChatMessage, Usage
from orchestration.patterns.base import GenerationRequest
from orchestration.patterns.clipping import estimate_tokens
from orchestration.token_length import likely_tokens

LEAST_TOKENS = 16
"""A step that may write less is not worth its prompt."""
LEAST_GUIDED = 320
"""Tokens with which a guided text is worth beginning, however many more it may have."""
MESSAGE_TOKENS = 8
"""What a chat template adds to a message, at most."""
ROLE_TOKENS = 64
"""The prompt of a role and what goes around a conversation, until an agent's first step has shown it."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one step may use. `max_tokens` and `seconds` of None are no limit; `held` are the tokens that
    nobody else may use meanwhile, `prompt` those of them for what it reads."""

    max_tokens: int | None = None
    seconds: float | None = None
    held: int = 0
    prompt: int = 0


@dataclass(slots=True)
class BudgetShare:
    """What a step that an agent does may use in all. `held` tokens and `calls` of it are kept from other
    steps, until they are used or the share is given back."""

    budget: Budget
    held: int = 0
    calls: int = 0


class BudgetTracker:
    """The budget of one run. `clock` gives seconds; the last step writes at most `final_tokens`.

    Until the last step begins, a part of the budget is kept for it: one call, a third of the time, and twice
    `final_tokens` up to half of all tokens (as much to read as to write). A pattern without such a step, one
    that ends with `RunContext.say`, sets `keeps` to False.

    Steps at work at the same time hold what they may use at most, so that they do not overrun the budget
    together. How long a prompt is, is estimated, rather too high: a run exceeds its tokens by the error of
    that at most.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        clock: Callable[[], float],
        final_tokens: int,
        deadline_s: float | None = None,
        keeps: bool = True,
    ) -> None:
        self.budget = budget
        self.deadline_s = deadline_s
        """Seconds from the beginning of the run to its deadline."""
        self.keeps = keeps
        self.tokens = 0
        """Used by steps that are over, read and written."""
        self.calls = 0
        self.left_out: list[str] = []
        """Steps that were not begun, or were cut off."""
        self.shortened: list[str] = []
        """Steps that may have had to stop early."""
        self._clock = clock
        self._began = clock()
        self._final_tokens = final_tokens
        self._held = 0
        self._held_calls = 0
        self._around: dict[str, int] = {}
        self._read: dict[tuple[str, ...], int] = {}
        """Prompt tokens that models reported, by agent and texts."""

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return self._clock() - self._began

    def begin(self, question: GenerationRequest, *, last: bool) -> Allowance:
        """What the step may use. Raises `BudgetExceeded` naming the limit where it is not worth beginning."""
        keeps = self.keeps and not last
        prompt = self.prompt_tokens(question.messages, question.agent)
        try:
            self._one_call(question.name, keeps)
            seconds = self._seconds_for(question.name, keeps)
            max_tokens = self._tokens_for(question, prompt, keeps, last)
        except BudgetExceeded:
            self.left_out.append(question.name)
            raise
        self.calls += 1
        held = prompt + (max_tokens or 0)
        self._held += held
        return Allowance(max_tokens, seconds, held, prompt)

    def share(self, name: str, request: GenerationRequest | None, *, last: bool) -> BudgetShare:
        """What a step may use that an agent does, whose own model call is `request`: that call, and of what
        is left beyond it half, so that steps at work at the same time do not overrun the budget together; all
        of it where the step is the last. The use of a tool, which has no `request`, takes time alone.

        Raises `BudgetExceeded` naming the limit where the step is not worth beginning.
        """
        if request is None:
            return BudgetShare(Budget(seconds=self.seconds_for(name)))
        allowance = self.begin(request, last=last)
        self.calls -= 1  # its calls count when they are over
        part = 1 if last else 2
        tokens, calls, extra = None, None, 0
        if self.budget.tokens is not None:
            kept = self._kept_tokens(self.keeps and not last)
            extra = max(0, self.budget.tokens - self.tokens - self._held - kept) // part
            tokens = allowance.held + extra
            self._held += extra
        if self.budget.calls is not None:
            left = self.budget.calls - self.calls - self._held_calls - (self.keeps and not last)
            calls = 1 + (left - 1) // part
            self._held_calls += calls
        budget = Budget(tokens=tokens, calls=calls, seconds=allowance.seconds)
        return BudgetShare(budget, allowance.held + extra, calls or 0)

    def used(self, share: BudgetShare, usage: Usage) -> None:
        """A model call of the step that has the share is over."""
        tokens = usage.prompt_tokens + usage.completion_tokens
        self.recorded(usage)
        freed = min(share.held, tokens)
        share.held -= freed
        self._held -= freed
        if share.calls:
            share.calls -= 1
            self._held_calls -= 1

    def give_back(self, share: BudgetShare) -> None:
        """The step that had it is over."""
        self._held -= share.held
        self._held_calls -= share.calls

    def merge(self, left_out: Sequence[str], shortened: Sequence[str]) -> None:
        """Add what an agent left out of a step, or kept short."""
        self.left_out += [name for name in left_out if name not in self.left_out]
        self.shortened += [name for name in shortened if name not in self.shortened]

    def prompt_tokens(self, messages: Sequence[ChatMessage], agent: str) -> int:
        """About how many an agent reads that is asked this, rather too many than too few."""
        return self._estimate(messages) + self._around.get(agent, ROLE_TOKENS)

    def read(self, question: GenerationRequest) -> int:
        """Tokens that a step is likely to have read which did not say so: those of another that was asked the
        same, else by the text."""
        known = self._read.get(_texts(question))
        likely = sum(likely_tokens(message.content) + MESSAGE_TOKENS for message in question.messages)
        return round(likely) + ROLE_TOKENS if known is None else known

    def affords(self, steps: int, messages: Sequence[ChatMessage], agent: str, max_tokens: int) -> bool:
        """Whether so many equal steps may be at work at once, and no others, each writing all it may."""
        limit = self.budget.tokens
        if limit is None:
            return True
        each = self.prompt_tokens(messages, agent) + max_tokens
        return self.tokens + steps * each <= limit - self._kept_tokens(self.keeps)

    def seconds_for(self, name: str) -> float | None:
        """How long the use of a tool may take, which costs no tokens and is no call; None where nothing
        bounds it. Raises `BudgetExceeded` when no time is left."""
        try:
            return self._seconds_for(name, self.keeps)
        except BudgetExceeded:
            self.left_out.append(name)
            raise

    def end(self, question: GenerationRequest, grant: Allowance, usage: Usage) -> None:
        """The step is over; `usage` is what it used, as far as is known."""
        self._held -= grant.held
        self.tokens += usage.prompt_tokens + usage.completion_tokens
        if usage.prompt_tokens and not usage.estimated:
            self._read[_texts(question)] = usage.prompt_tokens
            around = usage.prompt_tokens - self._estimate(question.messages)
            self._around[question.agent] = max(0, around, self._around.get(question.agent, 0))

    def recorded(self, usage: Usage) -> None:
        """A step that was done before, elsewhere, counts like one that is done here."""
        self.calls += 1
        self.tokens += usage.prompt_tokens + usage.completion_tokens

    def older(self, seconds: float) -> None:
        """The run is at least so old: it was begun elsewhere."""
        self._began = min(self._began, self._clock() - seconds)

    def ran_out(self, grant: Allowance, began: float) -> bool:
        """Whether a step that began then has had all the time it was granted."""
        return grant.seconds is not None and self._clock() - began >= grant.seconds * 0.98

    def out_of_time(self, name: str) -> BudgetExceeded:
        """What the step of that name ends with that was cut off, and left out."""
        self.left_out.append(name)
        limit = self.budget.seconds
        whole = f"budget of {limit:g} seconds" if self._is_budgeted() else "time until the deadline"
        return BudgetExceeded(f"step {name!r} was cut off after {self.seconds:.1f} s of the {whole}")

    def account(self) -> dict[str, Any]:
        """What was used, beside the limits that are set, and what was cut; empty where nothing is set or
        cut."""
        used = {"tokens": self.tokens, "calls": self.calls, "seconds": round(self.seconds, 3)}
        limits = self.budget.model_dump(exclude_none=True)
        account: dict[str, Any] = {
            name: {"used": value, "limit": limits[name]} for name, value in used.items() if name in limits
        }
        if self.left_out:
            account["left_out"] = list(self.left_out)
        if self.shortened:
            account["shortened"] = list(self.shortened)
        return account

    def note(self) -> str:
        """What the caller should know of what was cut; '' where nothing was."""
        cut = []
        if self.left_out:
            cut.append(f"without {', '.join(self.left_out)}")
        if self.shortened:
            cut.append(f"{', '.join(self.shortened)} kept short")
        if not cut:
            return ""
        limits = self.budget.model_dump(exclude_none=True)
        within = ", ".join(f"{value:g} {name}" for name, value in limits.items()) or "the time there was"
        return f"to stay within {within}: {'; '.join(cut)}"

    @staticmethod
    def _estimate(messages: Sequence[ChatMessage]) -> int:
        return ceil(sum(estimate_tokens(message.content) + MESSAGE_TOKENS for message in messages))

    def _one_call(self, name: str, keeps: bool) -> None:
        limit = self.budget.calls
        used = self.calls + self._held_calls
        if limit is not None and used + keeps >= limit:
            kept = ", and the last is kept for the answer" if keeps and used < limit else ""
            raise BudgetExceeded(
                f"step {name!r} would be call {used + 1} of a budget of {limit} calls: {used} used{kept}"
            )

    def _tokens_for(self, question: GenerationRequest, prompt: int, keeps: bool, last: bool) -> int | None:
        """The most that the step may write; None where nothing bounds it. A last step that nobody bounded may
        have all that is left, and others as much as it is expected to need."""
        max_tokens, limit = question.sampling.max_tokens, self.budget.tokens
        if limit is None:
            return max_tokens
        wanted = max_tokens or self._final_tokens
        kept = self._kept_tokens(keeps)
        left = limit - self.tokens - self._held - kept - prompt
        least = min(wanted, LEAST_TOKENS)
        if question.guide is not None and keeps:  # half of a JSON text is none
            least = max(least, min(wanted // 2, LEAST_GUIDED))
        if left < least:
            besides = f", {kept} kept for the answer" if kept else ""
            raise BudgetExceeded(
                f"step {question.name!r} asks for about {prompt} tokens to read and {wanted} to write, and "
                f"of a budget of {limit} tokens {self.tokens + self._held} are used{besides}"
            )
        if left < wanted and question.name not in self.shortened:
            self.shortened.append(question.name)
        return left if last and max_tokens is None else min(wanted, left)

    def _kept_tokens(self, keeps: bool) -> int:
        """Tokens reserved for the last step."""
        limit = self.budget.tokens
        return min(2 * self._final_tokens, limit // 2) if keeps and limit is not None else 0

    def _seconds_for(self, name: str, keeps: bool) -> float | None:
        """The deadline ends the last step by itself, with an error: half an answer is of no use."""
        limits = [limit for limit in (self.budget.seconds, self.deadline_s if keeps else None) if limit]
        if not limits:
            return None
        limit = min(limits)
        kept = limit / 3 if keeps else 0.0
        left = limit - kept - self.seconds
        if left <= 0:
            besides = f", {kept:.1f} s kept for the answer" if kept else ""
            whole = f"budget of {limit:g} seconds" if self._is_budgeted() else f"{limit:.1f} s there are"
            raise BudgetExceeded(
                f"step {name!r} cannot be begun: {self.seconds:.1f} s of the {whole} are used{besides}"
            )
        return left

    def _is_budgeted(self) -> bool:
        """Whether the budget's seconds end before the deadline."""
        seconds = self.budget.seconds
        return seconds is not None and (self.deadline_s is None or seconds <= self.deadline_s)


def _texts(question: GenerationRequest) -> tuple[str, ...]:
    return (question.agent, *(message.content for message in question.messages))
