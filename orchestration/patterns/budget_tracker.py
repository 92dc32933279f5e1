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

MIN_STEP_TOKENS = 16
"""Tokens to write below which a step is not begun."""
MIN_GUIDED_TOKENS = 320
"""Tokens to write with which a step whose text has a fixed form is begun, even if it asks for more."""
MESSAGE_TOKENS = 8
"""Tokens that a chat template adds to each message, at most."""
ROLE_TOKENS = 64
"""Tokens of a role's prompt and of the text around a conversation, until the agent's first step has reported
its prompt tokens."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one step may use."""

    max_tokens: int | None = None
    """Tokens to write; None: no limit."""
    seconds: float | None = None
    """None: no limit."""
    held: int = 0
    """Tokens, to read and to write, that other steps may not use while this one is at work."""
    prompt: int = 0
    """The part of `held` that is for the prompt."""


@dataclass(slots=True)
class BudgetShare:
    """What a step that an agent performs may use in all, with all its model calls."""

    budget: Budget
    held: int = 0
    """Tokens that other steps may not use until this step has used them or gives its share back."""
    calls: int = 0
    """Model calls that other steps may not make until then."""


class BudgetTracker:
    """The budget of one run. `clock` gives seconds; the last step writes at most `final_tokens`.

    Until the last step begins, a part of the budget is its reserve: one call, a third of the time, and twice
    `final_tokens` up to half of all tokens (as much to read as to write). A pattern that has no such step,
    because it ends with `RunContext.say`, sets `has_reserve` to False.

    Each step at work holds the most that it may use, so that several at once do not exceed the budget. The
    length of a prompt is an estimate, too high rather than too low: a run exceeds its tokens by no more than
    the error of that estimate.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        clock: Callable[[], float],
        final_tokens: int,
        deadline_s: float | None = None,
        has_reserve: bool = True,
    ) -> None:
        self.budget = budget
        self.deadline_s = deadline_s
        """Seconds from the beginning of the run to its deadline."""
        self.has_reserve = has_reserve
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
        """Seconds since the run began."""
        return self._clock() - self._began

    def begin(self, question: GenerationRequest, *, last: bool) -> Allowance:
        """What the step may use. Raises `BudgetExceeded` with the limit where too little is left for it."""
        has_reserve = self.has_reserve and not last
        prompt = self.prompt_tokens(question.messages, question.agent)
        try:
            self._one_call(question.name, has_reserve)
            seconds = self._seconds_for(question.name, has_reserve)
            max_tokens = self._tokens_for(question, prompt, has_reserve, last)
        except BudgetExceeded:
            self.left_out.append(question.name)
            raise
        self.calls += 1
        held = prompt + (max_tokens or 0)
        self._held += held
        return Allowance(max_tokens, seconds, held, prompt)

    def share(self, name: str, request: GenerationRequest | None, *, last: bool) -> BudgetShare:
        """What a step that an agent performs may use: the model call `request`, and half of what is left
        beyond it, so that several steps at once do not exceed the budget; the last step gets all of it. The
        use of a tool has no `request` and is limited in time alone.

        Raises `BudgetExceeded` with the limit where too little is left for the step.
        """
        if request is None:
            return BudgetShare(Budget(seconds=self.seconds_for(name)))
        allowance = self.begin(request, last=last)
        self.calls -= 1  # its calls count when they are over
        part = 1 if last else 2
        tokens, calls, extra = None, None, 0
        if self.budget.tokens is not None:
            reserve = self._reserve_tokens(self.has_reserve and not last)
            extra = max(0, self.budget.tokens - self.tokens - self._held - reserve) // part
            tokens = allowance.held + extra
            self._held += extra
        if self.budget.calls is not None:
            left = self.budget.calls - self.calls - self._held_calls - (self.has_reserve and not last)
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
        """The step that had the share is over."""
        self._held -= share.held
        self._held_calls -= share.calls

    def merge(self, left_out: Sequence[str], shortened: Sequence[str]) -> None:
        """Add the parts of a step that its agent left out or kept short."""
        self.left_out += [name for name in left_out if name not in self.left_out]
        self.shortened += [name for name in shortened if name not in self.shortened]

    def prompt_tokens(self, messages: Sequence[ChatMessage], agent: str) -> int:
        """An estimate of the prompt tokens of `messages` for `agent`, too high rather than too low."""
        return self._estimate(messages) + self._around.get(agent, ROLE_TOKENS)

    def read(self, question: GenerationRequest) -> int:
        """The likely prompt tokens of a step that did not report them: those of another step with the same
        prompt, else an estimate by its text."""
        known = self._read.get(_texts(question))
        likely = sum(likely_tokens(message.content) + MESSAGE_TOKENS for message in question.messages)
        return round(likely) + ROLE_TOKENS if known is None else known

    def affords(self, steps: int, messages: Sequence[ChatMessage], agent: str, max_tokens: int) -> bool:
        """Whether `steps` equal steps may be at work at once, each writing `max_tokens`, and no others."""
        limit = self.budget.tokens
        if limit is None:
            return True
        each = self.prompt_tokens(messages, agent) + max_tokens
        return self.tokens + steps * each <= limit - self._reserve_tokens(self.has_reserve)

    def seconds_for(self, name: str) -> float | None:
        """Seconds that the use of a tool may take; None: no limit. It costs no tokens and no call. Raises
        `BudgetExceeded` when no time is left."""
        try:
            return self._seconds_for(name, self.has_reserve)
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
        """Count a step that another coordinator or agent has finished."""
        self.calls += 1
        self.tokens += usage.prompt_tokens + usage.completion_tokens

    def older(self, seconds: float) -> None:
        """The run began at least `seconds` ago, with another coordinator."""
        self._began = min(self._began, self._clock() - seconds)

    def ran_out(self, grant: Allowance, began: float) -> bool:
        """Whether a step that began then has had all the time it was granted."""
        return grant.seconds is not None and self._clock() - began >= grant.seconds * 0.98

    def out_of_time(self, name: str) -> BudgetExceeded:
        """The error of a step that was cut off at the time limit; the step counts as left out."""
        self.left_out.append(name)
        limit = self.budget.seconds
        whole = f"budget of {limit:g} seconds" if self._is_budgeted() else "time until the deadline"
        return BudgetExceeded(f"step {name!r} was cut off after {self.seconds:.1f} s of the {whole}")

    def account(self) -> dict[str, Any]:
        """What was used of each limit, and which steps were left out or kept short. Empty without a limit and
        without such a step."""
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
        """The note for the caller about steps that were left out or kept short; '' without any."""
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

    def _one_call(self, name: str, has_reserve: bool) -> None:
        limit = self.budget.calls
        used = self.calls + self._held_calls
        if limit is not None and used + has_reserve >= limit:
            reserve = ", and the last is reserved for the answer" if has_reserve and used < limit else ""
            raise BudgetExceeded(
                f"step {name!r} would be call {used + 1} of a budget of {limit} calls: {used} used{reserve}"
            )

    def _tokens_for(
        self, question: GenerationRequest, prompt: int, has_reserve: bool, last: bool
    ) -> int | None:
        """Tokens that the step may write; None: no limit. The last step, if it sets no limit of its own, gets
        all that is left."""
        max_tokens, limit = question.sampling.max_tokens, self.budget.tokens
        if limit is None:
            return max_tokens
        wanted = max_tokens or self._final_tokens
        reserve = self._reserve_tokens(has_reserve)
        left = limit - self.tokens - self._held - reserve - prompt
        minimum = min(wanted, MIN_STEP_TOKENS)
        if question.guide is not None and has_reserve:  # half of a JSON text is none
            minimum = max(minimum, min(wanted // 2, MIN_GUIDED_TOKENS))
        if left < minimum:
            besides = f" and {reserve} are reserved for the answer" if reserve else ""
            raise BudgetExceeded(
                f"step {question.name!r} needs about {prompt} tokens to read and {wanted} to write; "
                f"of the budget of {limit} tokens, {self.tokens + self._held} are used{besides}"
            )
        if left < wanted and question.name not in self.shortened:
            self.shortened.append(question.name)
        return left if last and max_tokens is None else min(wanted, left)

    def _reserve_tokens(self, has_reserve: bool) -> int:
        """Tokens reserved for the last step."""
        limit = self.budget.tokens
        return min(2 * self._final_tokens, limit // 2) if has_reserve and limit is not None else 0

    def _seconds_for(self, name: str, has_reserve: bool) -> float | None:
        """Seconds that the step may take; None: no limit. The deadline is no limit of the last step here: it
        ends the run with an error, since half an answer is of no use."""
        limits = [limit for limit in (self.budget.seconds, self.deadline_s if has_reserve else None) if limit]
        if not limits:
            return None
        limit = min(limits)
        reserve = limit / 3 if has_reserve else 0.0
        left = limit - reserve - self.seconds
        if left <= 0:
            besides = f" and {reserve:.1f} s are reserved for the answer" if reserve else ""
            whole = f"budget of {limit:g} seconds" if self._is_budgeted() else f"{limit:.1f} s there are"
            raise BudgetExceeded(
                f"step {name!r} cannot begin: {self.seconds:.1f} s of the {whole} are used{besides}"
            )
        return left

    def _is_budgeted(self) -> bool:
        """Whether the budget's seconds end before the deadline."""
        seconds = self.budget.seconds
        return seconds is not None and (self.deadline_s is None or seconds <= self.deadline_s)


def _texts(question: GenerationRequest) -> tuple[str, ...]:
    return (question.agent, *(message.content for message in question.messages))
