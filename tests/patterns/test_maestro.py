"""The maestro pattern with scripted agents: its order, its failures, its bounds."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from orchestration.errors import BackendFailed, InvalidRequest, NobodyListens, NoNode
from orchestration.messages import ChatMessage, Guide, Priority, Sampling
from orchestration.patterns import Answer, Limits, Stage
from orchestration.patterns.clipping import estimate_tokens
from orchestration.patterns.maestro import maestro
from tests.patterns.scripted import AGENTS, Scripted, counting_clock, make_run, perform, plan_json

VERDICT = '{"score": 6, "issues": ["mentions no scattering"]}'


async def test_plan_specialists_review_and_synthesis_are_the_steps_in_that_order() -> None:
    ask = Scripted(
        {
            "plan": plan_json(("research", "read", 1), ("code", "write", 2)),
            "review": VERDICT,
            "synthesis": "It scatters.",
        }
    )
    text, answer, stage = await perform(maestro, make_run(), ask)
    assert text == answer.text == "It scatters."
    assert [(step.name, step.agent) for step in stage.steps] == [
        ("plan", "coordinator"),
        ("research", "research"),
        ("code", "code"),
        ("review", "critic"),
        ("synthesis", "coordinator"),
    ]
    assert ask.told == stage.steps
    assert all(step.node == "n1" and step.model == "m" and step.seconds > 0 for step in stage.steps)
    assert stage.usage.completion_tokens == sum(step.usage.completion_tokens for step in stage.steps)
    assert stage.usage.prompt_tokens == 50


async def test_specialists_of_one_stage_work_at_the_same_time() -> None:
    barrier = asyncio.Barrier(3)
    names = ("research", "code", "creative")
    plan = plan_json(*((name, "work", 1) for name in names))
    ask = Scripted({"plan": plan, "review": VERDICT}, meet=dict.fromkeys(names, barrier))
    await perform(maestro, make_run(), ask)
    assert ask.most_open == 3


async def test_a_later_stage_sees_what_earlier_ones_found_and_the_synthesis_sees_all_and_the_remarks() -> (
    None
):
    plan = plan_json(("research", "read", 1), ("creative", "dream", 1), ("reasoning", "weigh", 2))
    ask = Scripted(
        {"plan": plan, "research": "fact A", "creative": "idea B", "reasoning": "thus C", "review": VERDICT}
    )
    await perform(maestro, make_run(), ask)
    assert "fact A" not in ask.question("creative").messages[-1].content
    weighing = ask.question("reasoning").messages[-1].content
    assert "fact A" in weighing
    assert "idea B" in weighing
    assert "Your task: weigh" in weighing
    review = ask.question("review").messages[-1].content
    final = ask.question("synthesis").messages[-1].content
    for text in (review, final):
        assert all(found in text for found in ("fact A", "idea B", "thus C", "Why is the sky blue?"))
    assert "mentions no scattering" in final


async def test_a_specialist_that_fails_leaves_the_others_at_work_and_is_said() -> None:
    plan = plan_json(("research", "read", 1), ("code", "write", 1))
    ask = Scripted(
        {
            "plan": plan,
            "research": NobodyListens("no agent 'research' is running"),
            "code": "x = 1",
            "review": VERDICT,
        }
    )
    _, answer, stage = await perform(maestro, make_run(), ask)
    assert answer.finish_reason == "stop"
    failed = next(step for step in stage.steps if step.name == "research")
    assert failed.error is not None
    assert failed.error.code == "nobody_listens"
    assert "goes on without 1 of 2 specialists" in ask.said
    assert any("no agent 'research' is running" in said for said in ask.said)
    assert "x = 1" in ask.question("synthesis").messages[-1].content


async def test_only_all_specialists_failing_fails_the_run() -> None:
    plan = plan_json(("research", "read", 1), ("code", "write", 2))
    ask = Scripted({"plan": plan, "research": NoNode("none"), "code": BackendFailed("broken")})
    with pytest.raises(NoNode):
        await perform(maestro, make_run(), ask)
    assert [question.name for question in ask.asked] == ["plan", "research", "code"]


@pytest.mark.parametrize(
    "review", [BackendFailed("broken"), "looks fine to me", '{"score": 77, "issues": []}']
)
async def test_a_critic_that_fails_is_left_out(review: str | BackendFailed) -> None:
    ask = Scripted({"plan": plan_json(("code", "write", 1)), "review": review})
    text, _, _ = await perform(maestro, make_run(), ask)
    assert text
    assert any("goes on without the critic" in said for said in ask.said)
    assert "remarks" not in ask.question("synthesis").messages[-1].content


async def test_a_team_without_a_critic_needs_none() -> None:
    agents = {name: said for name, said in AGENTS.items() if name != "critic"}
    ask = Scripted({"plan": plan_json(("code", "write", 1))})
    _, _, stage = await perform(maestro, make_run(), ask, agents=agents)
    assert [step.name for step in stage.steps] == ["plan", "code", "synthesis"]


async def test_an_unusable_plan_is_asked_for_once_more_and_greedily() -> None:
    ask = Scripted({"plan": "no", "plan again": plan_json(("code", "write", 1)), "review": VERDICT})
    _, _, stage = await perform(maestro, make_run(), ask)
    assert [step.name for step in stage.steps][:3] == ["plan", "plan again", "code"]
    assert ask.question("plan").sampling.temperature is None
    assert ask.question("plan again").sampling.temperature == 0


async def test_two_unusable_plans_make_it_a_single_and_it_says_so() -> None:
    ask = Scripted({"plan": "no", "plan again": "no", "answer": "blue"})
    text, _, stage = await perform(maestro, make_run(), ask)
    assert text == "blue"
    assert [step.name for step in stage.steps] == ["plan", "plan again", "answer"]
    assert "no usable plan; the coordinator answers alone" in ask.said


async def test_a_model_that_cannot_be_guided_makes_it_a_single_at_once() -> None:
    ask = Scripted({"plan": BackendFailed("no guides here"), "answer": "blue"})
    _, _, stage = await perform(maestro, make_run(), ask)
    assert [step.name for step in stage.steps] == ["plan", "answer"]


async def test_an_error_that_any_step_would_meet_ends_the_run() -> None:
    ask = Scripted({"plan": NoNode("no live node serves a chat model")})
    with pytest.raises(NoNode):
        await perform(maestro, make_run(), ask)
    assert len(ask.asked) == 1


async def test_the_callers_wishes_reach_the_step_that_writes_the_answer() -> None:
    guide = Guide(json_schema={"type": "object"})
    run = make_run(
        messages=(
            ChatMessage(role="system", content="Speak like a pirate."),
            ChatMessage(role="user", content="Ahoy?"),
            ChatMessage(role="assistant", content="Arr."),
            ChatMessage(role="user", content="Where is the treasure?"),
        ),
        model="big",
        priority=Priority.BATCH,
        guide=guide,
        sampling=Sampling(temperature=1.5, max_tokens=7, seed=42),
    )
    ask = Scripted({"plan": plan_json(("code", "write", 1)), "review": VERDICT})
    await perform(maestro, run, ask)
    final = ask.question("synthesis")
    assert final.sampling == Sampling(temperature=1.5, max_tokens=7, seed=42)
    assert final.guide == guide
    assert final.messages[0] == ChatMessage(role="system", content="Speak like a pirate.")
    assert "user: Ahoy?\nassistant: Arr." in final.messages[-1].content
    inner = ask.question("code")
    assert inner.guide is None
    assert inner.sampling.temperature is None
    assert inner.sampling.seed == 42
    for question in ask.asked:
        assert question.model == "big"
        assert question.priority is Priority.BATCH


async def test_every_step_is_bounded_and_long_texts_are_passed_on_clipped_with_a_note() -> None:
    limits = Limits()
    long = "word " * 4_000
    plan = plan_json(*((name, "work", 1) for name in ("research", "code", "creative")))
    ask = Scripted({"plan": plan, "research": long, "code": long, "creative": long, "review": VERDICT})
    await perform(maestro, make_run(long), ask, limits=limits)
    for question in ask.asked:
        assert question.sampling.max_tokens is not None
        inside = sum(estimate_tokens(message.content) for message in question.messages)
        assert inside + question.sampling.max_tokens < 2048
    assert "characters left out" in ask.question("synthesis").messages[-1].content
    assert "characters left out" in ask.question("plan").messages[-1].content


async def test_leaving_in_the_middle_of_the_answer_stops_the_step() -> None:
    ask = Scripted({"plan": plan_json(("code", "write", 1)), "review": VERDICT, "synthesis": "one two three"})
    run = make_run()
    stage = Stage(run, ask, agents=AGENTS, clock=counting_clock())
    async with aclosing(maestro(run, stage)) as items:
        async for item in items:
            assert not isinstance(item, Answer)
            break
    assert ask.open_now == 0
    assert [step.name for step in stage.steps] == ["plan", "code", "review"]


async def test_nobody_asking_anything_is_refused() -> None:
    run = make_run(messages=(ChatMessage(role="system", content="Be brief."),))
    with pytest.raises(InvalidRequest, match="nothing is asked"):
        await perform(maestro, run, Scripted({}))
