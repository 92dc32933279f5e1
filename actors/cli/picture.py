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
"""Letters of a text that somebody said."""
QUIET = frozenset(("text_delta", "warning"))
"""Kinds that are shown elsewhere: the answer, and the notes that come with it."""
STATES = {"working": "cyan", "done": "green", "failed": "red", "replaced": "dim", "left out": "yellow"}
_TASK = re.compile(r"task (\d+)\b")


def draw(events: Sequence[RunEvent], now: float, *, answering: bool = False) -> RenderableType:
    """What has happened until `now` (Unix time, seconds), in the order in which it began.

    `answering`: the picture is the last, and the answer is written below it: steps at work show no time.
    """
    picture = _Picture(now)
    for event in events:
        if isinstance(event, RunStarted):
            picture = _Picture(now)  # another coordinator tells it over
        picture.add(event)
    if answering:
        picture.leave()
    return picture.tree


class _Picture:
    """Takes events one after another. Patterns of users may tell anything under any name."""

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
            told = event.data
            known = {
                "round": self._round,
                "position": self._position,
                "debate_round": self._debate_round,
                "vote": self._voted,
                "plan": self._plan,
                "task": self._task,
                "verdict": self._verdict,
                "choice": self._choice,
            }.get(event.type)
            if known is not None:
                known(told)
            else:
                self._line(f"{event.type}: {_listed(told)}", "dim")

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
        """Show the steps at work as what goes on while the answer is written."""
        for node, step in self._running.values():
            about = " · ".join(part for part in (step.step, step.agent, step.model) if part)
            node.label = Text.assemble(("→ ", "cyan"), _clean(f"{about} · goes on below"))

    def _end(self, event: StepEnded) -> None:
        node, _ = self._running.pop(event.step.name, (None, None))
        if node is None:
            node = self._place(event.step.name).add("")
        node.label = _of_step(event.step, recorded=event.recorded)

    def _place(self, step: str) -> Tree:
        """Where a step hangs: a task's under its task."""
        found = _TASK.match(step)
        task = self._tasks.get(found.group(1)) if found is not None else None
        return self._branch if task is None else task[0]

    def _line(self, text: str, style: str = "") -> Tree:
        return self._branch.add(Text(_clean(text), style=style))

    def _round(self, told: dict[str, Any]) -> None:
        number = str(told.get("number", len(self._rounds) + 1))
        debaters = told.get("debaters")
        count = f" · {len(debaters)} debaters" if isinstance(debaters, list) else ""
        self._branch = self.tree.add(Text(_clean(f"round {number}{count}"), style="bold"))
        self._rounds[number] = self._branch

    def _position(self, told: dict[str, Any]) -> None:
        who = f"debater {told.get('debater', '?')} ({told.get('role', '')})"
        style, mind = ("yellow", " changed its mind") if told.get("changed") else ("", " holds")
        branch = self._rounds.get(str(told.get("round")), self._branch)
        branch.add(Text(_clean(f"{who}{mind}: {told.get('answer', '')}"), style=style))

    def _debate_round(self, told: dict[str, Any]) -> None:
        over = f" · over: {told['over']}" if told.get("over") else ""
        self._line(f"{_parties(told.get('groups'))}{_share(told, 'agreement')}{over}", "magenta")
        self._branch = self.tree

    def _voted(self, told: dict[str, Any]) -> None:
        """The latest count; it stays in one place."""
        counted = f"vote: {told.get('votes', '?')} of {told.get('voters', '?')} counted · "
        parties = _parties(told.get("groups"))
        text = Text(
            _clean(f"{counted}{parties}{_share(told, 'agreement')}{_share(told, 'lead_probability')}"),
            style="magenta",
        )
        if self._vote is None:
            self._vote = self.tree.add(text)
        self._vote.label = text

    def _plan(self, told: dict[str, Any]) -> None:
        if isinstance(told.get("tasks"), list):
            plan = self.tree.add(Text("tasks", style="bold"))
            for task in _dicts(told["tasks"]):
                self._tasks[str(task.get("id"))] = (plan.add(_of_task(task)), task)
            return
        plan = self._line(f"plan: {told.get('reason', '')}", "bold")
        for number, step in enumerate(_dicts(told.get("steps")), 1):
            task = {**step, "id": f"{step.get('stage', 1)}."}
            self._tasks[str(number)] = (plan.add(_of_task(task)), task)

    def _task(self, told: dict[str, Any]) -> None:
        known = self._tasks.get(str(told.get("task")))
        if known is not None:
            known[0].label = _of_task(known[1], told)

    def _verdict(self, told: dict[str, Any]) -> None:
        passes = bool(told.get("passes"))
        line = self._line(
            f"verdict {told.get('revision', 0)}: {'passes' if passes else 'does not pass'}, "
            f"{told.get('score', '?')} of 10",
            "green" if passes else "yellow",
        )
        for fix in _dicts(told.get("must_fix")):
            line.add(Text(_clean(f"{fix.get('who', '?')} must fix: {fix.get('what', '')}")))

    def _choice(self, told: dict[str, Any]) -> None:
        self._line(
            f"chose {told.get('pattern', '?')}, {told.get('profile', '?')}: {told.get('difficulty', '')} "
            f"question of kind {told.get('question', '?')} ({told.get('reason', '')})",
            "magenta",
        )


def _of_step(step: Step, *, recorded: bool) -> Text:
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


def _of_task(task: dict[str, Any], told: dict[str, Any] | None = None) -> Text:
    """A task of a plan: its inputs and its state."""
    said = told or {}
    state = str(said.get("state", "waiting"))
    seconds = said.get("seconds")
    took = f" {seconds:.1f} s" if isinstance(seconds, int | float) else ""
    inputs = task.get("inputs")
    needs = f" ← {', '.join(str(each) for each in inputs)}" if isinstance(inputs, list) and inputs else ""
    return Text.assemble(
        _clean(f"{task.get('id')} {task.get('specialist', '?')}: {task.get('task', '')}{needs} "),
        (_clean(f"[{state}{took}]"), STATES.get(state, "dim")),
    )


def _parties(parties: Any) -> str:
    """Who agrees with whom: `1, 3 | 2`."""
    if not isinstance(parties, list):
        return "?"
    shown = (", ".join(str(each) for each in party) for party in parties if isinstance(party, list))
    return " | ".join(shown) or "nobody"


def _share(told: dict[str, Any], name: str) -> str:
    value = told.get(name)
    return f" · {name.replace('_', ' ')} {value:.2f}" if isinstance(value, int | float) else ""


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _listed(told: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _clean(text: str) -> str:
    """One line of what a model or a user's pattern wrote, with nothing that a terminal obeys."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
