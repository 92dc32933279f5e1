"""The specialists at work on the tasks of one run."""

from __future__ import annotations

from collections.abc import Iterable

from orchestration.errors import BackendFailed, BudgetExceeded, OrchestraError
from orchestration.messages import ChatMessage, Sampling
from orchestration.patterns.base import StepResult
from orchestration.patterns.conversation import Conversation
from orchestration.patterns.graph.execution import execute
from orchestration.patterns.graph.planner import Planner
from orchestration.patterns.graph.results import State, TaskResult, passed_on, step_name, title
from orchestration.patterns.graph.schedule import Schedule, TaskOrder
from orchestration.patterns.graph.task import Task, TaskGraph
from orchestration.patterns.prompt_texts import FOUND_HEAD, TASK_BRIEFLY, TASK_ONLY
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.specialist_step import numbered, run_specialist_step
from orchestration.query_analysis.analysis import analyse


class TaskExecutor:
    """`results` are those of all tasks that were ever planned, `graph` is the plan that holds now."""

    def __init__(
        self,
        context: RunContext,
        talk: Conversation,
        graph: TaskGraph,
        *,
        order: TaskOrder,
        max_parallel: int,
    ) -> None:
        self.context = context
        self.talk = talk
        self.graph = graph
        self.results: dict[int, TaskResult] = {}
        self.failures: list[TaskResult] = []
        """In the order in which they came."""
        self.models: dict[int, str | None] = {}
        """By task: the most trusted model for it, None where the specialist's own does it."""
        self.is_planned_anew = False
        self.is_out_of_budget = False
        self._order = order
        self._max_parallel = max_parallel
        self._schedule = self._scheduled(graph)
        self._began = context.budget.seconds

    @property
    def tokens(self) -> int:
        """What can be passed on to one step."""
        return self.context.limits.passed_tokens * self.context.limits.max_specialists

    @property
    def done(self) -> list[TaskResult]:
        return [result for result in self.results.values() if result.state == "done"]

    @property
    def missing(self) -> list[TaskResult]:
        """Tasks of the plan that brought nothing."""
        return [self.results[task.id] for task in self.graph.tasks if not self.results[task.id].text]

    def steps_of(self, tasks: Iterable[int]) -> list[str]:
        """The names of the steps that brought the results of these."""
        return [self.results[each].step for each in tasks if self.results[each].text]

    async def perform(self, planner: Planner | None) -> None:
        """All tasks that can be done. Where some fail, `planner` makes another plan, once, for what is left;
        without it, or without a plan from it, those that need them go on without."""
        await execute(self._schedule, self._perform, max_parallel=self._max_parallel)
        if self.failures and self.done and not self.is_out_of_budget and planner is not None:
            await self._plan_anew(planner)
        lost: set[int] = set()
        while self.done and not self.is_out_of_budget:
            new = {result.task.id for result in self.failures} - lost
            if not new or not self._schedule.held:
                break
            lost |= new
            self._schedule.without(each for each in new if each in self.graph.followers)
            await execute(self._schedule, self._perform, max_parallel=self._max_parallel)
        for task in self._schedule.held:
            await self._turn(self.results[task.id], "left out")

    async def _plan_anew(self, planner: Planner) -> None:
        found = [result.task.id for result in self.done]
        failed = {
            result.task.id: result.error.message for result in self.failures if result.error is not None
        }
        graph = await planner.anew(self.graph, found, failed)
        if graph is None:
            return
        self.is_planned_anew = True
        for result in self.failures:
            await self.context.warn(f"{title(result)} failed, and what was left was planned anew")
        for task in self._schedule.held:
            await self._turn(self.results[task.id], "replaced")
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
            numbered(self.context, name)
        return Schedule(graph, self._expected, order=self._order, done=done)

    def _expected(self, task: Task) -> float:
        model = self.models.get(task.id) or self.context.run.model
        return self.context.durations.expected(task.specialist, model)

    async def _perform(self, task: Task) -> bool:
        """Whether it is done. A failure that may pass is tried again, once."""
        result = self.results[task.id]
        result.began = self._now()
        while True:
            result.attempts += 1
            await self._turn(result, "working")
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
                await self._turn(result, "failed")
                return False
            result.error, result.ended = None, self._now()
            self.context.durations.learn(task.specialist, result.answer.finish.model, result.answer.seconds)
            await self._turn(result, "done")
            return True

    async def _ask(self, result: TaskResult) -> StepResult:
        task, run = result.task, self.context.run
        inputs = passed_on((self.results[each] for each in task.inputs), self.tokens)
        for each in task.inputs:
            text, most = self.results[each].text, self.tokens // max(1, len(task.inputs))
            await self.context.clipped(f"the result of task {each}", text, most)
        earlier = f"\n\n{FOUND_HEAD}\n{inputs}" if inputs else ""
        name = step_name(task, result.attempts)
        before = [step_name(task, 1)] if result.attempts > 1 else self.steps_of(task.inputs)
        self.context.builds_on[name] = tuple(before or [self.graph.step])
        only = TASK_BRIEFLY if self.context.is_small(self.models.get(task.id)) else TASK_ONLY
        request = f"{self.talk}{earlier}\n\nYour task: {task.task}\n{only}"
        answer = await run_specialist_step(
            self.context,
            task.specialist,
            (ChatMessage(role="user", content=request),),
            name=name,
            sampling=Sampling(max_tokens=self.context.limits.specialist_tokens, seed=run.sampling.seed),
            model=self.models.get(task.id),
            query=task.task,
        )
        if not answer.text.strip():
            raise BackendFailed(f"{task.specialist} answered task {task.id} with nothing")
        return answer

    async def _turn(self, result: TaskResult, state: State) -> None:
        """Say how it stands with a task."""
        result.state = state
        said: dict[str, object] = {"attempt": result.attempts} if result.attempts else {}
        if state in ("done", "failed"):
            said["seconds"] = round(result.seconds, 3)
        if state == "done" and result.answer is not None:
            said["node"] = result.answer.finish.node
        if state == "failed" and result.error is not None:
            said["error"] = result.error.code
        await self.context.event(
            "task", task=result.task.id, agent=result.task.specialist, state=state, **said
        )

    def _now(self) -> float:
        return self.context.budget.seconds - self._began
