"""Which model does which step of a team where the caller names none: the most trusted live one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from orchestration.errors import InvalidGuide
from orchestration.messages import ModelCard, Run
from orchestration.patterns import Pattern, RunContext
from orchestration.patterns.debate import debate
from orchestration.patterns.decompose import decompose
from orchestration.patterns.maestro import maestro
from orchestration.query_analysis.features import Kind
from orchestration.trust.assignment import most_trusted
from orchestration.trust.counts import Counts
from orchestration.trust.trust import Trust
from tests.orchestration.patterns.graphs import graph_json
from tests.orchestration.patterns.scripted import (
    AGENTS,
    Reply,
    Scripted,
    make_context,
    make_run,
    plan_json,
)
from tests.orchestration.patterns.test_debate import BEES, HORNETS, OPEN, WASPS, answers, critiques
from tests.orchestration.patterns.test_maestro import VERDICT, teamed, verdict_json

CODE_TASK = "Write a Python function that sorts a list of names."
PLAN = plan_json(("research", "What is the capital of France?", 1), ("code", CODE_TASK, 2))
LARGEST, WISE, CODER = "llama-3.1-70b", "wise", "coder"
CARDS = [
    ModelCard(name=LARGEST, parameters=70, context_tokens=8192),
    ModelCard(name=WISE, parameters=7, context_tokens=8192),
    ModelCard(name=CODER, parameters=7, context_tokens=8192),
]
FACTUAL = {LARGEST: 0.7, WISE: 0.9, CODER: 0.5}
CODE = {LARGEST: 0.6, WISE: 0.7, CODER: 0.95}
TASKS = graph_json(
    (1, "research", "What is the capital of France, and when was it founded?", []),
    (2, "code", CODE_TASK, [1]),
)


def trusting(priors: Mapping[str, float], proven: Collection[str] = ()) -> Trust:
    models = {
        name: {"user": Counts(right=90 * priors[name], wrong=90 * (1 - priors[name]))} for name in proven
    }
    return Trust(models, prior=priors.__getitem__)  # type: ignore[arg-type]


async def performed(
    pattern: Pattern, run: Run, ask: Scripted, fixed: Collection[str] = (), trust: Trust | None = None
) -> RunContext:
    own = trust or trusting(FACTUAL)
    by_kind: dict[Kind | None, Trust] = {"code": trusting(CODE)}
    context = make_context(
        run, ask, models=CARDS, trust_of=lambda kind: by_kind.get(kind, own), agents_with_models=fixed
    )
    async with aclosing(pattern(run, context)) as items:
        async for _ in items:
            pass
    return context


def models_of(ask: Scripted) -> dict[str, str | None]:
    return {question.name: question.model for question in ask.asked}


async def test_plan_tasks_and_synthesis_go_to_the_most_trusted_by_the_kind_of_each() -> None:
    ask = Scripted({"plan": TASKS, "task 1": "Paris.", "task 2": "def f(names): return sorted(names)"})
    await performed(decompose, make_run(), ask)
    assert models_of(ask) == {"plan": WISE, "task 1": WISE, "task 2": CODER, "synthesis": WISE}


@pytest.mark.parametrize("said", [{"model": LARGEST}, {}])
async def test_what_the_caller_or_the_settings_name_goes_first(said: dict[str, Any]) -> None:
    ask = Scripted({"plan": TASKS, "task 1": "Paris.", "task 2": "def f(names): return sorted(names)"})
    await performed(decompose, make_run(**said), ask, fixed=() if said else AGENTS)
    assert set(models_of(ask).values()) == {LARGEST if said else None}


async def test_analysis_plan_critic_and_synthesis_of_a_team_go_to_the_most_trusted() -> None:
    ask = Scripted(teamed(plan=PLAN, review=VERDICT))
    context = await performed(maestro, make_run(), ask)
    asked = models_of(ask)
    assert {asked[name] for name in ("analysis", "plan", "research", "review", "synthesis")} == {WISE}
    assert asked["code"] == CODER
    (verdict,) = context.report["maestro"]["verdicts"]
    assert (verdict["model"], verdict["own_family"]) == (WISE, True)


async def test_a_critic_of_another_family_is_taken_where_its_record_is_as_good() -> None:
    ask = Scripted(teamed(plan=PLAN, review=VERDICT))
    alike = trusting({LARGEST: 0.88, WISE: 0.9, CODER: 0.5}, proven=(LARGEST, WISE))
    context = await performed(maestro, make_run(), ask, trust=alike)
    assert models_of(ask)["synthesis"] == WISE
    (verdict,) = context.report["maestro"]["verdicts"]
    assert verdict["model"] in (LARGEST, "m")  # the largest, which the role takes by itself
    assert models_of(ask)["review"] is None
    assert not verdict["own_family"]


async def test_where_the_most_trusted_cannot_be_guided_the_coordinators_own_model_plans() -> None:
    guided: dict[str, Reply] = {"plan": InvalidGuide("no guides here"), "plan again": TASKS}
    ask = Scripted(guided | {"task 1": "Paris.", "task 2": "def f(names): return sorted(names)"})
    await performed(decompose, make_run(), ask)
    asked = models_of(ask)
    assert (asked["plan"], asked["plan again"], asked["task 1"]) == (WISE, None, WISE)
    team = teamed(review=verdict_json(score=9, verdict="pass"))
    ask = Scripted(team | {"plan": InvalidGuide("no guides here"), "plan again": team["plan"]})
    await performed(maestro, make_run(), ask)
    assert (models_of(ask)["plan"], models_of(ask)["plan again"]) == (WISE, None)


async def test_the_judge_of_a_debate_is_the_most_trusted_that_lives() -> None:
    said = (BEES, WASPS, HORNETS)
    ask = Scripted(answers(said, said) | critiques() | {"synthesis": "some insects."})
    await performed(debate, make_run(OPEN, pattern="debate"), ask)
    assert models_of(ask)["synthesis"] == WISE
    assert models_of(ask)["round 1 / debater 1"] == WISE


@pytest.mark.parametrize(
    ("priors", "proven", "taken"),
    [
        ({"usual": 0.6, "other": 0.62}, (), "usual"),
        ({"usual": 0.6, "other": 0.7}, (), "other"),
        ({"usual": 0.6, "other": 0.62}, ("other", "usual"), "other"),
        ({"usual": 0.6, "other": 0.6}, (), "usual"),
        ({"usual": 0.6, "other": 0.5}, ("other", "usual"), "usual"),
    ],
    ids=["hardly thought better", "clearly", "shown to be better", "as good", "worse"],
)
def test_another_model_than_the_usual_one_has_to_be_shown_or_thought_clearly_better(
    priors: dict[str, float], proven: tuple[str, ...], taken: str
) -> None:
    assert most_trusted(trusting(priors, proven), list(priors), "usual") == taken
    assert most_trusted(Trust(), [], "usual") is None


def test_a_judge_that_users_disagree_with_is_not_asked_to_judge() -> None:
    trust = replace(trusting({"usual": 0.6, "other": 0.9}), judges={"other": Counts(right=2, wrong=20)})
    assert most_trusted(trust, ["usual", "other"], "usual") == "other"
    assert most_trusted(trust, ["usual", "other"], "usual", judged=["other"]) == "usual"
    assert most_trusted(trust, ["other"], "usual", judged=["third"]) == "other"
