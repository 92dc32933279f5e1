"""A run as a tree for the terminal, drawn from its events."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text
from rich.tree import Tree

from orchestration.messages import Step
from orchestration.run_events import RunEnded, RunEvent, RunStarted, StepEnded, StepStarted

WIDTH = 100
"""Maximum characters of a text in one line."""
QUIET = frozenset(("text_delta", "warning"))
"""Types of events that are shown elsewhere: the answer, and its notes."""
STATES = {"working": "cyan", "done": "green", "failed": "red", "replaced": "dim", "left out": "yellow"}
_TASK = re.compile(r"task (\d+)\b")


def draw(events: Sequence[RunEvent], now: float, *, answering: bool = False) -> RenderableType:
    """Draw the events until `now` (Unix time, seconds), in the order in which their steps began.

    `answering`: this is the last picture, with the answer below it: running steps show no time.
    """
    picture = _Picture(now)
    for event in events:
        if isinstance(event, RunStarted):
            picture = _Picture(now)  # another coordinator repeats the events
        picture.add(event)
    if answering:
        picture.leave()
    return picture.tree


class _Picture:
    """Takes events one after another. Patterns of users may publish any fields under any type."""

    def __init__(self, now: float) -> None:
        self.tree = Tree(Text("…"), guide_style="dim")
        self._now = now
        self._branch = self.tree
        self._rounds: dict[str, Tree] = {}
        self._tasks: dict[str, tuple[Tree, dict[str, Any]]] = {}
        self._running: dict[str, tuple[Tree, StepStarted]] = {}
        self._vote: Tree | None = None
        self._title = ""
        self._began = now
        self._tokens = 0

    def add(self, event: RunEvent) -> None:
        if isinstance(event, RunStarted):
            self._start(event)
        elif isinstance(event, StepStarted):
            self._begin(event)
        elif isinstance(event, StepEnded):
            self._end(event)
        elif isinstance(event, RunEnded):
            self._close(event)
        elif event.type not in QUIET:
            fields = event.data
            handler = {
                "round": self._round,
                "position": self._position,
                "debate_round": self._debate_round,
                "vote": self._vote_count,
                "plan": self._plan,
                "task": self._task,
                "verdict": self._verdict,
                "choice": self._choice,
            }.get(event.type)
            if handler is not None:
                handler(fields)
            else:
                self._line(f"{event.type}: {_listed(fields)}", "dim")

    def _start(self, event: RunStarted) -> None:
        again = f", attempt {event.attempt}" if event.attempt > 1 else ""
        self._title, self._began = f"{event.pattern or event.model} · run {event.run}{again}", event.at
        self.tree.label = self._headed(f"{max(0.0, self._now - event.at):.1f} s")

    def _close(self, event: RunEnded) -> None:
        usage = event.usage
        took = f"{max(0.0, event.at - self._began):.1f} s"
        tokens = f"{usage.prompt_tokens} tokens read, {usage.completion_tokens} written"
        self.tree.label = self._headed(f"{took} · {tokens}")
        if event.error is not None:
            self._branch = self.tree
            self._line(event.error.message, "red")

    def _headed(self, more: str) -> Text:
        return Text.assemble((self._title, "bold"), (f" · {more}", "dim"))

    def _begin(self, event: StepStarted) -> None:
        seconds = max(0.0, self._now - event.at)
        about = [event.step, event.agent, event.model, f"{seconds:.1f} s"]
        label = Text.assemble(("◌ ", "cyan"), _clean(" · ".join(part for part in about if part)))
        self._running[event.step] = (self._place(event.step).add(label), event)

    def leave(self) -> None:
        """Show running steps without their time, since the answer is written below the tree."""
        for node, step in self._running.values():
            about = " · ".join(part for part in (step.step, step.agent, step.model) if part)
            node.label = Text.assemble(("→ ", "cyan"), _clean(f"{about} · answer below"))

    def _end(self, event: StepEnded) -> None:
        node, _ = self._running.pop(event.step.name, (None, None))
        if node is None:
            node = self._place(event.step.name).add("")
        node.label = _step_text(event.step, recorded=event.recorded)

    def _place(self, step: str) -> Tree:
        """The branch of a step: for a step of a task that task, else the current branch."""
        found = _TASK.match(step)
        task = self._tasks.get(found.group(1)) if found is not None else None
        return self._branch if task is None else task[0]

    def _line(self, text: str, style: str = "") -> Tree:
        return self._branch.add(Text(_clean(text), style=style))

    def _round(self, fields: dict[str, Any]) -> None:
        number = str(fields.get("number", len(self._rounds) + 1))
        debaters = fields.get("debaters")
        count = f" · {len(debaters)} debaters" if isinstance(debaters, list) else ""
        self._branch = self.tree.add(Text(_clean(f"round {number}{count}"), style="bold"))
        self._rounds[number] = self._branch

    def _position(self, fields: dict[str, Any]) -> None:
        who = f"debater {fields.get('debater', '?')} ({fields.get('role', '')})"
        style, mind = ("yellow", " changed its mind") if fields.get("changed") else ("", " holds")
        branch = self._rounds.get(str(fields.get("round")), self._branch)
        branch.add(Text(_clean(f"{who}{mind}: {fields.get('answer', '')}"), style=style))

    def _debate_round(self, fields: dict[str, Any]) -> None:
        over = f" · over: {fields['over']}" if fields.get("over") else ""
        self._line(f"{_groups(fields.get('groups'))}{_share(fields, 'agreement')}{over}", "magenta")
        self._branch = self.tree

    def _vote_count(self, fields: dict[str, Any]) -> None:
        """Show the latest count of the vote, always in the same line."""
        counted = f"vote: {fields.get('votes', '?')} of {fields.get('voters', '?')} counted · "
        groups = _groups(fields.get("groups"))
        text = Text(
            _clean(f"{counted}{groups}{_share(fields, 'agreement')}{_share(fields, 'lead_probability')}"),
            style="magenta",
        )
        if self._vote is None:
            self._vote = self.tree.add(text)
        self._vote.label = text

    def _plan(self, fields: dict[str, Any]) -> None:
        if isinstance(fields.get("tasks"), list):
            plan = self.tree.add(Text("tasks", style="bold"))
            for task in _dicts(fields["tasks"]):
                self._tasks[str(task.get("id"))] = (plan.add(_task_text(task)), task)
            return
        plan = self._line(f"plan: {fields.get('reason', '')}", "bold")
        for number, step in enumerate(_dicts(fields.get("steps")), 1):
            task = {**step, "id": f"{step.get('stage', 1)}."}
            self._tasks[str(number)] = (plan.add(_task_text(task)), task)

    def _task(self, fields: dict[str, Any]) -> None:
        task = self._tasks.get(str(fields.get("task")))
        if task is not None:
            task[0].label = _task_text(task[1], fields)

    def _verdict(self, fields: dict[str, Any]) -> None:
        passes = bool(fields.get("passes"))
        line = self._line(
            f"verdict {fields.get('revision', 0)}: {'passes' if passes else 'does not pass'}, "
            f"{fields.get('score', '?')} of 10",
            "green" if passes else "yellow",
        )
        for fix in _dicts(fields.get("must_fix")):
            line.add(Text(_clean(f"{fix.get('who', '?')} must fix: {fix.get('what', '')}")))

    def _choice(self, fields: dict[str, Any]) -> None:
        self._line(
            f"chose {fields.get('pattern', '?')}, {fields.get('profile', '?')}: "
            f"{fields.get('difficulty', '')} question of kind {fields.get('question', '?')} "
            f"({fields.get('reason', '')})",
            "magenta",
        )


def _step_text(step: Step, *, recorded: bool) -> Text:
    where = f"{step.model} @ {step.node}" if step.node else step.model
    tokens = f"{step.usage.completion_tokens} tokens" if step.usage.completion_tokens else ""
    about = [step.name, step.agent, step.tool, where, f"{step.seconds:.1f} s", tokens]
    if recorded:
        about.append("done before")
    if step.finish_reason == "cancelled":
        about.append("stopped")
    text = _clean(" · ".join(part for part in about if part))
    if step.error is None:
        return Text.assemble(("✓ ", "green"), text)
    return Text.assemble(("✗ ", "red"), text, (_clean(f" · {step.error.message}"), "red"))


def _task_text(task: dict[str, Any], progress: dict[str, Any] | None = None) -> Text:
    """A task of a plan: its inputs and its state."""
    progress = progress or {}
    state = str(progress.get("state", "waiting"))
    seconds = progress.get("seconds")
    took = f" {seconds:.1f} s" if isinstance(seconds, int | float) else ""
    inputs = task.get("inputs")
    needs = f" ← {', '.join(str(each) for each in inputs)}" if isinstance(inputs, list) and inputs else ""
    return Text.assemble(
        _clean(f"{task.get('id')} {task.get('specialist', '?')}: {task.get('task', '')}{needs} "),
        (_clean(f"[{state}{took}]"), STATES.get(state, "dim")),
    )


def _groups(groups: Any) -> str:
    """Groups of equal answers: `1, 3 | 2`."""
    if not isinstance(groups, list):
        return "?"
    lines = (", ".join(str(each) for each in group) for group in groups if isinstance(group, list))
    return " | ".join(lines) or "none"


def _share(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return f" · {name.replace('_', ' ')} {value:.2f}" if isinstance(value, int | float) else ""


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _listed(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())


def _clean(text: str) -> str:
    """The text in one line, without control characters, at most `WIDTH` long."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
