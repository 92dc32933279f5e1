"""Executes the tasks of one run with its specialists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from orchestration.errors import BackendFailed, BudgetExceeded, OrchestraError
from orchestration.messages import ChatMessage, Sampling
from orchestration.patterns.base import StepOptions, StepResult
from orchestration.patterns.graph.planner import Planner
from orchestration.patterns.graph.results import State, TaskResult, results_text, step_name, title
from orchestration.patterns.graph.schedule import Schedule, TaskOrder, execute
from orchestration.patterns.graph.task import Task, TaskGraph
from orchestration.patterns.prompt_texts import (
    FOUND_HEAD,
    IMPROVED_HEAD,
    SO_FAR_HEAD,
    TASK_AGAIN,
    TASK_AGAIN_BRIEFLY,
    TASK_BRIEFLY,
    TASK_ONLY,
)
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.specialist_step import first_source, run_specialist_step
from orchestration.query_analysis.analysis import analyse

Results = Mapping[int, TaskResult]
"""Results by the ids of their tasks."""


class TaskExecutor:
    """Executes a graph. `question` is what every specialist sees. A failure that may pass is tried again,
    once."""

    def __init__(
        self,
        context: RunContext,
        question: str,
        graph: TaskGraph,
        *,
        order: TaskOrder = "critical-path",
        max_parallel: int,
    ) -> None:
        self.context = context
        self.question = question
        self.graph = graph
        """The plan that is valid now."""
        self.results: dict[int, TaskResult] = {}
        """The results of all tasks that were ever planned."""
        self.failures: list[TaskResult] = []
        """The failed tasks, the earliest failure first."""
        self.models: dict[int, str | None] = {}
        """The most trusted model for each task; None where the specialist's own model does it."""
        self.is_replanned = False
        self.is_out_of_budget = False
        self._order = order
        self._max_parallel = max_parallel
        self._schedule = self._scheduled(graph)
        self._created = context.budget.seconds

    @property
    def tokens(self) -> int:
        """Tokens of results that can be passed on to one step."""
        return self.context.limits.passed_tokens * self.context.limits.max_specialists

    @property
    def done(self) -> list[TaskResult]:
        return [result for result in self.results.values() if result.state == "done"]

    @property
    def missing(self) -> list[TaskResult]:
        """The tasks of the plan without a result."""
        return [self.results[task.id] for task in self.graph.tasks if not self.results[task.id].text]

    def steps_of(self, tasks: Iterable[int], results: Results | None = None) -> list[str]:
        """The names of the steps that brought the results of these tasks."""
        found = [(results or self.results)[each] for each in tasks]
        return [result.step for result in found if result.text]

    async def perform(self, planner: Planner | None = None) -> None:
        """Perform all tasks that can be done. Where some fail, `planner` makes another plan, once, for what
        is left; without a planner, or a plan from it, the followers of failed tasks go on without them.

        Raises the first error where no task has a result, unless the budget ended first."""
        await execute(self._schedule, self._perform, max_parallel=self._max_parallel)
        if self.failures and self.done and not self.is_out_of_budget and planner is not None:
            await self._replan(planner)
        released: set[int] = set()
        while (self.done or self.graph.is_staged) and not self.is_out_of_budget:
            new = {result.task.id for result in self.failures} - released
            if not new or not self._schedule.not_started:
                break
            released |= new
            for each in new & self.graph.followers.keys():
                self._schedule.done(each)
            await execute(self._schedule, self._perform, max_parallel=self._max_parallel)
        for task in self._schedule.not_started:
            await self._set_state(self.results[task.id], "left out")
        if not self.done and not self.is_out_of_budget and self.failures[0].error is not None:
            raise self.failures[0].error

    async def revise(self, fixes: Mapping[str, Sequence[str]], number: int) -> dict[int, TaskResult]:
        """All results, with those revised that have something to fix, by the labels of their tasks. Tasks
        are revised in the order of the graph and see what was revised before them. A revision that fails
        leaves its result as it was."""
        revised = dict(self.results)
        others = {task.id for task in self.graph.tasks if task.label not in fixes}

        async def revise(task: Task) -> bool:
            must_fix = "\n".join(f"- {fix}" for fix in fixes[task.label])
            try:
                answer = await self._revise(task, must_fix, revised, number)
            except OrchestraError as error:
                name = step_name(task, 1, number)
                await self.context.progress(f"{name}: the answer stays as it was: {error.message}")
            else:
                revised[task.id] = replace(revised[task.id], answer=answer, revision=number)
            return True

        schedule = Schedule(self.graph, self._expected, order=self._order, done=others)
        await execute(schedule, revise, max_parallel=self._max_parallel)
        return revised

    async def _replan(self, planner: Planner) -> None:
        done = [result.task.id for result in self.done]
        failed = {
            result.task.id: result.error.message for result in self.failures if result.error is not None
        }
        graph = await planner.replan(self.graph, done, failed)
        if graph is None:
            return
        self.is_replanned = True
        for result in self.failures:
            await self.context.warn(f"{title(result)} failed; the remaining tasks were planned again")
        for task in self._schedule.not_started:
            await self._set_state(self.results[task.id], "replaced")
        self.graph = graph
        self._schedule = self._scheduled(graph)
        await execute(self._schedule, self._perform, max_parallel=self._max_parallel)

    def _scheduled(self, graph: TaskGraph) -> Schedule:
        done = {result.task.id for result in self.done}
        new = [task for task in graph.tasks if task.id not in done]
        for task in new:
            kind = analyse(task.task).kind
            self.models[task.id] = self.context.trusted_model(task.specialist, kind=kind)
        self.results |= {task.id: TaskResult(task, expected_s=self._expected(task)) for task in new}
        for name in [step_name(task, attempt) for attempt in (1, 2) for task in new]:
            first_source(self.context, name)
        return Schedule(graph, self._expected, order=self._order, done=done)

    def _expected(self, task: Task) -> float:
        model = self.models.get(task.id) or self.context.run.model
        return self.context.facts.durations.expected(task.specialist, model)

    async def _perform(self, task: Task) -> bool:
        """Whether the task has a result."""
        result = self.results[task.id]
        result.started = self._now()
        while True:
            result.attempts += 1
            await self._set_state(result, "working")
            try:
                result.answer = await self._ask(result)
            except OrchestraError as error:
                result.error = error
                if isinstance(error, BudgetExceeded):
                    self.is_out_of_budget = True
                    self._schedule.stop()
                elif error.retryable and result.attempts < 2:
                    continue
                result.ended = self._now()
                self.failures.append(result)
                await self._set_state(result, "failed")
                return False
            result.error, result.ended = None, self._now()
            self.context.facts.durations.learn(
                task.specialist, result.answer.finish.model, result.answer.seconds
            )
            await self._set_state(result, "done")
            return True

    async def _ask(self, result: TaskResult) -> StepResult:
        task = result.task
        before = [step_name(task, 1)] if result.attempts > 1 else self.steps_of(task.inputs)
        only = TASK_BRIEFLY if self._is_small(task) else TASK_ONLY
        request = f"{await self._request(task, self.results)}\n{only}"
        return await self._run(task, result.step, request, before or [self.graph.step])

    async def _revise(self, task: Task, must_fix: str, results: Results, number: int) -> StepResult:
        result, name = results[task.id], step_name(task, 1, number)
        own = await self.context.clipped(
            f"the result of {task.step}", result.text, self.context.limits.passed_tokens
        )
        again = TASK_AGAIN_BRIEFLY if self._is_small(task) else TASK_AGAIN
        request = (
            f"{await self._request(task, results)}\n\n{SO_FAR_HEAD}\n{own}\n\n"
            f"{IMPROVED_HEAD}\n{must_fix}\n\n{again}"
        )
        return await self._run(task, name, request, self.steps_of([*task.inputs, task.id], results))

    async def _request(self, task: Task, results: Results) -> str:
        """The question, the results of the task's inputs, and the task."""
        inputs = [results[each] for each in task.inputs]
        for each in inputs:
            max_tokens = self.tokens // len(inputs)
            await self.context.clipped(f"the result of {each.task.step}", each.text, max_tokens)
        found = results_text(inputs, self.tokens)
        earlier = f"\n\n{FOUND_HEAD}\n{found}" if found else ""
        return f"{self.question}{earlier}\n\nYour task: {task.task}"

    async def _run(self, task: Task, name: str, request: str, after: Sequence[str]) -> StepResult:
        self.context.builds_on(name, after)
        answer = await run_specialist_step(
            self.context,
            task.specialist,
            (ChatMessage(role="user", content=request),),
            name=name,
            query=task.task,
            options=StepOptions(
                sampling=Sampling(
                    max_tokens=self.context.limits.specialist_tokens, seed=self.context.run.sampling.seed
                ),
                model=self.models.get(task.id),
            ),
        )
        if not answer.text.strip():
            raise BackendFailed(f"{task.specialist} answered {task.step} with an empty text")
        return answer

    def _is_small(self, task: Task) -> bool:
        return self.context.is_small(self.models.get(task.id))

    async def _set_state(self, result: TaskResult, state: State) -> None:
        """Set the state of a task and publish it."""
        result.state = state
        data: dict[str, object] = {"attempt": result.attempts} if result.attempts else {}
        if state in ("done", "failed"):
            data["seconds"] = round(result.seconds, 3)
        if state == "done" and result.answer is not None:
            data["node"] = result.answer.finish.node
        if state == "failed" and result.error is not None:
            data["error"] = result.error.code
        task = result.task
        await self.context.event("task", task=task.id, agent=task.specialist, state=state, **data)

    def _now(self) -> float:
        return self.context.budget.seconds - self._created
