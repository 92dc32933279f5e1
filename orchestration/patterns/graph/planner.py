"""The coordinator's plans: the first, put right once, and another one for what is left of it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from orchestration.errors import BackendFailed, BudgetExceeded, InvalidGuide, OrchestraError
from orchestration.messages import ChatMessage, Guide, Sampling
from orchestration.patterns.answer_check import CallerText
from orchestration.patterns.clipping import clip
from orchestration.patterns.conversation import Conversation
from orchestration.patterns.graph.plan import (
    TOKENS_PER_TASK,
    InvalidGraph,
    graph_request,
    graph_schema,
    parse_graph,
)
from orchestration.patterns.graph.task import Task, TaskGraph
from orchestration.patterns.graph.validation import PlanLimits
from orchestration.patterns.run_context import COORDINATOR, RunContext

WRONG_TOKENS = 160
"""Of a plan that is shown to its author again, and of what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Planner:
    """Of one run."""

    context: RunContext
    talk: Conversation
    bounds: PlanLimits

    async def plan(self) -> TaskGraph | None:
        """None where there is none to be had. Raises what would fail any other step as well, such as
        `NoNode`."""
        messages = graph_request(str(self.talk), self.context.specialists, self.bounds)
        model = self.context.trusted_model(COORDINATOR)
        for attempt in (1, 2):
            name = "plan" if attempt == 1 else "plan again"
            try:
                text = await self._ask(name, messages, self.bounds, model=model)
                graph = parse_graph(text, self.bounds, caller=self._caller)
            except (InvalidGuide, BackendFailed, BudgetExceeded) as error:
                await self.context.progress(f"there is no plan: {error.message}")
                if model is None or isinstance(error, BudgetExceeded):
                    return None
                model = None  # the coordinator's own may do what the most trusted cannot
                continue
            except InvalidGraph as error:
                await self.context.progress(f"the plan is not usable: {error}")
                most = WRONG_TOKENS if self.context.is_small() else self.context.limits.plan_tokens
                messages = (*messages, *_put_right(clip(text, most), clip(str(error), most)))
                continue
            await self._say(name, graph)
            return replace(graph, step=name)
        return None

    async def anew(
        self, graph: TaskGraph, found: Collection[int], failed: Mapping[int, str]
    ) -> TaskGraph | None:
        """One more plan, for what is left: there are results of the tasks `found`, and those in `failed`
        ended so. Its graph has the tasks that are done, and new ones. None where there is none."""
        done = tuple(task for task in graph.tasks if task.id in found)
        bounds = PlanLimits(
            specialists=self.bounds.specialists,
            max_tasks=len(graph.tasks) - len(done),
            max_depth=self.bounds.max_depth,
            known=tuple(task.id for task in done),
        )
        first = 1 + max(task.id for task in graph.tasks)
        asked = graph_request(str(self.talk), self.context.specialists, bounds)
        messages = (*asked, *_what_is_left(graph, done, failed))
        try:
            model = self.context.trusted_model(COORDINATOR)
            text = await self._ask("replan", messages, bounds, first, model=model)
            new = parse_graph(text, bounds, first, self._caller)
        except (OrchestraError, InvalidGraph) as error:
            await self.context.progress(f"there is no plan for what is left: {error}")
            return None
        await self._say("replan", new)
        return TaskGraph((*done, *new.tasks), new.mended, "replan")

    @property
    def _caller(self) -> CallerText:
        return CallerText(self.context.run.messages)

    async def _ask(
        self,
        name: str,
        messages: tuple[ChatMessage, ...],
        bounds: PlanLimits,
        first: int = 1,
        *,
        model: str | None,
    ) -> str:
        tokens = max(self.context.limits.plan_tokens, TOKENS_PER_TASK * bounds.max_tasks)
        answer = await self.context.ask(
            COORDINATOR,
            messages,
            name=name,
            sampling=Sampling(
                max_tokens=tokens,
                seed=self.context.run.sampling.seed,
                temperature=None if name == "plan" else 0,
            ),
            guide=Guide(json_schema=graph_schema(bounds, first)),
            model=model,
        )
        return answer.text

    async def _say(self, name: str, graph: TaskGraph) -> None:
        mended = f" (repaired: {graph.mended})" if graph.mended else ""
        await self.context.progress(f"{name}{mended}: {graph}")
        await self.context.event("plan", step=name, tasks=[_told(task) for task in graph.tasks])


def _told(task: Task) -> dict[str, object]:
    return {"id": task.id, "inputs": list(task.inputs), "specialist": task.specialist, "task": task.task}


def _put_right(text: str, wrong: str) -> tuple[ChatMessage, ...]:
    return (
        ChatMessage(role="assistant", content=text or "{}"),
        ChatMessage(role="user", content=f"This cannot be carried out: {wrong}. Write the subtasks again."),
    )


def _what_is_left(
    graph: TaskGraph, done: tuple[Task, ...], failed: Mapping[int, str]
) -> tuple[ChatMessage, ...]:
    tasks = [_told(task) for task in graph.tasks]
    wrong = "; ".join(f"subtask {number} failed: {clip(why, 40)}" for number, why in failed.items())
    results = ", ".join(str(task.id) for task in done)
    return (
        ChatMessage(role="assistant", content=json.dumps({"tasks": tasks})),
        ChatMessage(
            role="user",
            content=f"There are results of {results}. But {wrong}. Write other subtasks for what is left; "
            f"their inputs may be {results} too.",
        ),
    )
