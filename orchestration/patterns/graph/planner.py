"""The coordinator's plans: the first plan, corrected once, and another plan for the rest of its tasks."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from orchestration.errors import BackendFailed, BudgetExceeded, InvalidGuide, OrchestraError
from orchestration.messages import ChatMessage, GuidedDecoding, Sampling
from orchestration.patterns.base import StepOptions
from orchestration.patterns.caller_text import CallerText
from orchestration.patterns.clipping import clip
from orchestration.patterns.graph.plan_forms import INPUTS, InvalidPlan, PlanForm
from orchestration.patterns.graph.task import Task, TaskGraph
from orchestration.patterns.graph.validation import PlanLimits
from orchestration.patterns.limits import CHARS_PER_TOKEN, TASK_JSON_TOKENS
from orchestration.patterns.run_context import COORDINATOR, RunContext

SHOWN_TOKENS = 160
"""Tokens of an invalid plan that its author is shown again, and of its errors, where models are small."""
ERROR_TOKENS = 40
"""Tokens of the error of a failed task that the coordinator is shown."""


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans one run in one form. `question` is the conversation as the coordinator sees it."""

    context: RunContext
    question: str
    limits: PlanLimits
    form: PlanForm

    async def plan(self) -> TaskGraph | None:
        """The plan; None where the coordinator writes no valid one in two attempts. The second attempt is
        greedy and sees the errors of the first. Raises errors that any other step would meet as well, such as
        `NoNode`."""
        messages = self.form.request(self.question, self.context.specialists, self.limits)
        model = self.context.trusted_model(COORDINATOR)
        for attempt in (1, 2):
            name = "plan" if attempt == 1 else "plan again"
            try:
                text = await self._ask(name, messages, self.form, self.limits, model=model)
                graph = self.form.parse(text, self.limits, caller=self._caller)
            except (InvalidGuide, BackendFailed, BudgetExceeded) as error:
                await self.context.progress(f"there is no plan: {error.message}")
                if model is None or isinstance(error, BudgetExceeded):
                    return None
                model = None  # the coordinator's own model may follow the guide where the most trusted cannot
                continue
            except InvalidPlan as error:
                await self.context.progress(f"the plan is not usable: {error}")
                max_tokens = SHOWN_TOKENS if self.context.is_small() else self.context.limits.plan_tokens
                messages = (*messages, *_correction(clip(text, max_tokens), clip(str(error), max_tokens)))
                continue
            await self._publish(name, graph, self.form)
            return replace(graph, step=name)
        return None

    async def replan(
        self, graph: TaskGraph, done: Collection[int], failed: Mapping[int, str]
    ) -> TaskGraph | None:
        """One more plan, of inputs, for what is left: the tasks `done` have results, and those in `failed`
        ended with these errors. The new graph has the tasks that are done, and new ones. None where there is
        no valid plan."""
        done_tasks = tuple(task for task in graph.tasks if task.id in done)
        limits = replace(
            self.limits,
            max_tasks=len(graph.tasks) - len(done_tasks),
            known=tuple(task.id for task in done_tasks),
        )
        first = 1 + max(task.id for task in graph.tasks)
        request = INPUTS.request(self.question, self.context.specialists, limits)
        messages = (*request, *_remaining(graph, done_tasks, failed))
        try:
            model = self.context.trusted_model(COORDINATOR)
            text = await self._ask("replan", messages, INPUTS, limits, first, model=model)
            new = INPUTS.parse(text, limits, first, self._caller)
        except (OrchestraError, InvalidPlan) as error:
            await self.context.progress(f"there is no plan for what is left: {error}")
            return None
        await self._publish("replan", new, INPUTS)
        return TaskGraph(tasks=(*done_tasks, *new.tasks), repaired=new.repaired, step="replan")

    @property
    def _caller(self) -> CallerText:
        return CallerText(self.context.run.messages)

    async def _ask(
        self,
        name: str,
        messages: tuple[ChatMessage, ...],
        form: PlanForm,
        limits: PlanLimits,
        first: int = 1,
        *,
        model: str | None,
    ) -> str:
        per_task = TASK_JSON_TOKENS + round(limits.task_chars / CHARS_PER_TOKEN)
        answer = await self.context.ask(
            COORDINATOR,
            messages,
            name=name,
            options=StepOptions(
                sampling=Sampling(
                    max_tokens=max(self.context.limits.plan_tokens, per_task * limits.max_tasks),
                    seed=self.context.run.sampling.seed,
                    temperature=None if name == "plan" else 0,
                ),
                guide=GuidedDecoding(json_schema=form.schema(limits, first)),
                model=model,
            ),
        )
        return answer.text

    async def _publish(self, name: str, graph: TaskGraph, form: PlanForm) -> None:
        repaired = f" (repaired: {graph.repaired})" if graph.repaired else ""
        await self.context.progress(f"{name}{repaired}: {graph}")
        await self.context.event("plan", step=name, **form.describe(graph))


def _correction(text: str, errors: str) -> tuple[ChatMessage, ...]:
    return (
        ChatMessage(role="assistant", content=text or "{}"),
        ChatMessage(role="user", content=f"This cannot be carried out: {errors}. Write the plan again."),
    )


def _remaining(
    graph: TaskGraph, done: tuple[Task, ...], failed: Mapping[int, str]
) -> tuple[ChatMessage, ...]:
    tasks = [INPUTS.describe_task(task) for task in graph.tasks]
    errors = "; ".join(
        f"subtask {number} failed: {clip(why, ERROR_TOKENS)}" for number, why in failed.items()
    )
    results = ", ".join(str(task.id) for task in done)
    return (
        ChatMessage(role="assistant", content=json.dumps({"tasks": tasks})),
        ChatMessage(
            role="user",
            content=f"There are results of {results}. But {errors}. Write other subtasks for what is left; "
            f"their inputs may be {results} too.",
        ),
    )
