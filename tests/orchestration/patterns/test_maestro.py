"""The maestro pattern with scripted agents: its order, failures and limits."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest

from orchestration.errors import (
    BackendFailed,
    BudgetExceeded,
    InvalidRequest,
    NoNode,
    NoResponders,
    OrchestraError,
)
from orchestration.messages import Budget, ChatMessage, GuidedDecoding, Priority, Sampling
from orchestration.patterns import StepLimits, StepResult
from orchestration.patterns.clipping import estimate_tokens
from orchestration.patterns.maestro import maestro
from tests.orchestration.patterns.scripted import (
    AGENTS,
    Scripted,
    counting_clock,
    make_context,
    make_run,
    perform,
    plan_json,
)
from tests.orchestration.patterns.test_step_cache import Book, performed

ANALYSIS = json.dumps({"asked": "The reason.", "criteria": ["names the cause", "is short."]})


def verdict_json(*fixes: tuple[str, str], score: int = 4, verdict: str = "fail") -> str:
    return json.dumps(
        {
            "must_fix": [{"who": who, "what": what} for who, what in fixes],
            "scores": {"names the cause": score, "is short": score},
            "verdict": verdict,
        }
    )


VERDICT = verdict_json(("code", "mentions no scattering"), score=8, verdict="pass")


async def test_plan_specialists_review_and_synthesis_are_the_steps_in_that_order() -> None:
    ask = Scripted(
        {
            "analysis": ANALYSIS,
            "plan": plan_json(("research", "read", 1), ("code", "write", 2)),
            "review": VERDICT,
            "synthesis": "It scatters.",
        }
    )
    text, answer, stage = await perform(maestro, make_run(), ask)
    assert text == answer.text == "It scatters."
    assert [(step.name, step.agent) for step in stage.steps] == [
        ("analysis", "coordinator"),
        ("plan", "coordinator"),
        ("research", "research"),
        ("code", "code"),
        ("review", "critic"),
        ("synthesis", "coordinator"),
    ]
    assert ask.told == stage.steps
    assert all(step.node == "n1" and step.model == "m" and step.seconds > 0 for step in stage.steps)
    assert stage.usage.completion_tokens == sum(step.usage.completion_tokens for step in stage.steps)
    assert stage.usage.prompt_tokens == 60


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
        {"plan": plan, "research": "fact A", "creative": "idea B", "reasoning": "thus C"}
        | {"review": verdict_json(("creative", "mentions no scattering"), score=9, verdict="pass")}
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


async def test_a_specialist_that_fails_leaves_the_others_running_and_progress_says_so() -> None:
    plan = plan_json(("research", "read", 1), ("code", "write", 1))
    ask = Scripted(
        {
            "plan": plan,
            "research": NoResponders("no agent 'research' is running"),
            "code": "x = 1",
            "review": VERDICT,
        }
    )
    _, answer, stage = await perform(maestro, make_run(), ask)
    assert answer.finish.reason == "stop"
    failed = next(step for step in stage.steps if step.name == "research")
    assert failed.error is not None
    assert failed.error.code == "no_responders"
    assert "goes on without 1 of 2 specialists" in ask.said
    assert any("no agent 'research' is running" in said for said in ask.said)
    assert "x = 1" in ask.question("synthesis").messages[-1].content


async def test_the_run_fails_only_when_all_specialists_fail() -> None:
    plan = plan_json(("research", "read", 1), ("code", "write", 2))
    ask = Scripted({"plan": plan, "research": NoNode("none"), "code": BackendFailed("broken")})
    with pytest.raises(NoNode):
        await perform(maestro, make_run(), ask)
    names = [question.name for question in ask.asked]
    assert names == ["analysis", "plan", "research", "research again", "code", "code again"]


async def test_a_specialist_that_fails_once_is_tried_again_and_the_answer_is_whole() -> None:
    plan = plan_json(("research", "read", 1), ("code", "write", 2))
    ask = Scripted({"plan": plan, "research": BackendFailed("broken"), "research again": "fact A"})
    _, _, context = await perform(maestro, make_run(), ask)
    assert "fact A" in ask.question("code").messages[-1].content
    steps = context.report["maestro"]["plan"]["steps"]
    assert [step["step"] for step in steps] == ["research", "code"]
    assert not any("error" in step for step in steps)
    told = [(data["task"], data["state"]) for kind, data in ask.happened if kind == "task"]
    assert told == [(1, "working"), (1, "working"), (1, "done"), (2, "working"), (2, "done")]


@pytest.mark.parametrize(
    "review",
    [
        BackendFailed("broken"),
        "looks fine to me",
        '{"must_fix": [], "scores": {"clear": 77}, "verdict": "pass"}',
        '{"must_fix": [], "scores": {}, "verdict": "pass"}',
        '{"must_fix": [], "scores": {"clear": 7}, "verdict": "maybe"}',
    ],
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
    assert [step.name for step in stage.steps] == ["analysis", "plan", "code", "synthesis"]


async def test_an_unusable_plan_is_asked_for_once_more_and_greedily() -> None:
    ask = Scripted({"plan": "no", "plan again": plan_json(("code", "write", 1)), "review": VERDICT})
    _, _, stage = await perform(maestro, make_run(), ask)
    assert [step.name for step in stage.steps][:4] == ["analysis", "plan", "plan again", "code"]
    assert ask.question("plan").sampling.temperature is None
    assert ask.question("plan again").sampling.temperature == 0


async def test_two_unusable_plans_make_it_a_single_and_it_says_so() -> None:
    ask = Scripted({"plan": "no", "plan again": "no", "answer": "blue"})
    text, _, stage = await perform(maestro, make_run(), ask)
    assert text == "blue"
    assert [step.name for step in stage.steps] == ["analysis", "plan", "plan again", "answer"]
    assert "no usable plan; the coordinator answers alone" in ask.said


async def test_a_model_that_cannot_be_guided_makes_it_a_single_at_once() -> None:
    ask = Scripted({"plan": BackendFailed("no guides here"), "answer": "blue"})
    _, _, stage = await perform(maestro, make_run(), ask)
    assert [step.name for step in stage.steps] == ["analysis", "plan", "answer"]


async def test_an_error_that_any_step_would_meet_ends_the_run() -> None:
    ask = Scripted({"plan": NoNode("no live node serves a chat model")})
    with pytest.raises(NoNode):
        await perform(maestro, make_run(), ask)
    assert [question.name for question in ask.asked] == ["analysis", "plan"]


async def test_the_callers_wishes_reach_the_step_that_writes_the_answer() -> None:
    guide = GuidedDecoding(json_schema={"type": "object"})
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


@pytest.mark.simulation
async def test_every_step_is_bounded_and_long_texts_are_passed_on_clipped_with_a_note() -> None:
    limits = StepLimits()
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
    stage = make_context(run, ask, agents=AGENTS, clock=counting_clock())
    async with aclosing(maestro(run, stage)) as items:
        async for item in items:
            assert not isinstance(item, StepResult)
            break
    assert ask.open_now == 0
    assert [step.name for step in stage.steps] == ["analysis", "plan", "code", "review", "synthesis"]
    assert (stage.steps[-1].finish_reason, stage.steps[-1].text) == ("cancelled", "one two")


async def test_a_conversation_without_a_question_is_refused() -> None:
    run = make_run(messages=(ChatMessage(role="system", content="Be brief."),))
    with pytest.raises(InvalidRequest, match="nothing is asked"):
        await perform(maestro, run, Scripted({}))


def teamed(**script: str | OrchestraError) -> dict[str, str | OrchestraError]:
    """Two specialists, one after the other."""
    plan = plan_json(("research", "read", 1), ("code", "write", 2))
    return {"analysis": ANALYSIS, "plan": plan, "research": "fact A", "code": "x = 1"} | script


async def test_the_analysis_says_what_is_asked_and_by_what_it_is_judged() -> None:
    ask = Scripted(teamed(review=VERDICT))
    _, _, stage = await perform(maestro, make_run(), ask)
    said = "Question: Why is the sky blue?\nA good answer: names the cause; is short."
    for name in ("plan", "research", "review", "synthesis"):
        assert said in ask.question(name).messages[-1].content
    guide = ask.question("review").guide
    assert guide is not None
    assert guide.json_schema is not None
    assert list(guide.json_schema["properties"]["scores"]["properties"]) == ["names the cause", "is short"]
    assert stage.report["maestro"]["goal"] == "The reason."
    assert stage.report["maestro"]["criteria"] == ["names the cause", "is short"]


@pytest.mark.parametrize(
    "said", ["no idea", BackendFailed("no guides here"), '{"asked": "x", "criteria": [" . "]}']
)
async def test_without_a_usable_analysis_the_criteria_are_those_of_any_answer(
    said: str | BackendFailed,
) -> None:
    ask = Scripted(teamed(review=VERDICT) | {"analysis": said})
    text, _, stage = await perform(maestro, make_run(), ask)
    assert text
    assert stage.report["maestro"]["criteria"] == ["correct", "complete", "clear"]
    assert any(told.startswith("goes on without an analysis") for told in ask.said)
    assert "A good answer" not in ask.question("plan").messages[-1].content


async def test_specialists_revise_what_they_must_fix_until_the_verdict_passes() -> None:
    ask = Scripted(
        teamed(
            **{
                "review": verdict_json(("research", "name the particles"), ("research", "be short")),
                "research, revision 1": "fact B",
                "review 2": verdict_json(score=9, verdict="pass"),
                "synthesis": "done",
            }
        )
    )
    text, _, stage = await perform(maestro, make_run(), ask)
    assert text == "done"
    assert [step.name for step in stage.steps] == [
        "analysis",
        "plan",
        "research",
        "code",
        "review",
        "research, revision 1",
        "review 2",
        "synthesis",
    ]
    revising = ask.question("research, revision 1").messages[-1].content
    for told in ("Your task: read", "fact A", "- name the particles\n- be short"):
        assert told in revising
    final = ask.question("synthesis").messages[-1].content
    assert "fact B" in final
    assert "fact A" not in final
    assert "x = 1" in final
    report = stage.report["maestro"]
    assert [(said["score"], said["passes"], said["accepted"]) for said in report["verdicts"]] == [
        (4.0, False, True),
        (9.0, True, True),
    ]
    assert report["revisions"] == [
        {"revision": 1, "step": "research", "must_fix": ["name the particles", "be short"]}
    ]
    assert json.loads(json.dumps(stage.report.sections)) == stage.report.sections
    assert not stage.notes


async def test_a_later_stage_revises_with_what_an_earlier_one_has_revised_before() -> None:
    ask = Scripted(
        teamed(
            **{
                "review": verdict_json(("code", "use it"), ("research", "look again")),
                "research, revision 1": "fact B",
                "review 2": verdict_json(score=9, verdict="pass"),
            }
        )
    )
    await perform(maestro, make_run(), ask)
    names = [question.name for question in ask.asked]
    assert names.index("research, revision 1") < names.index("code, revision 1")
    assert "fact B" in ask.question("code, revision 1").messages[-1].content


@pytest.mark.parametrize("revisions", [0, 1, 3])
async def test_there_are_no_more_revisions_than_are_set_and_a_verdict_that_fails_is_noted(
    revisions: int,
) -> None:
    ask = Scripted(teamed(critic=verdict_json(("code", "make it work"))))
    _, _, stage = await perform(maestro, make_run(settings={"revisions": revisions}), ask)
    names = [question.name for question in ask.asked]
    assert sum(name.startswith("code, revision") for name in names) == revisions
    assert sum(name.startswith("review") for name in names) == revisions + 1
    assert stage.notes == [
        "the critic's verdict does not pass: fail, 4 of 10 (names the cause 4, is short 4); "
        "to fix: code: make it work"
    ]
    assert "make it work" in ask.question("synthesis").messages[-1].content


async def test_a_revision_that_scores_lower_is_left_out() -> None:
    ask = Scripted(
        teamed(
            **{
                "review": verdict_json(("code", "make it work"), score=5),
                "code, revision 1": "worse",
                "review 2": verdict_json(("code", "make it work"), score=2),
            }
        )
    )
    _, _, stage = await perform(maestro, make_run(settings={"revisions": 3}), ask)
    final = ask.question("synthesis").messages[-1].content
    assert "x = 1" in final
    assert "worse" not in final
    verdicts = stage.report["maestro"]["verdicts"]
    assert [(said["revision"], said["accepted"]) for said in verdicts] == [(0, True), (1, False)]


@pytest.mark.parametrize(
    ("review", "settings"),
    [
        (verdict_json(score=7, verdict="pass"), {}),
        (verdict_json(score=7, verdict="pass"), {"pass_at": 7}),
        (verdict_json(("ghost", "fix this")), {}),  # who is nobody here
        (verdict_json(), {}),
    ],
)
async def test_a_verdict_that_passes_or_names_no_specialist_asks_for_no_revision(
    review: str, settings: dict[str, object]
) -> None:
    ask = Scripted(teamed(review=review))
    await perform(maestro, make_run(settings=settings), ask)
    assert len(ask.asked) == 6


async def test_a_word_of_pass_with_scores_below_the_mark_does_not_pass() -> None:
    review = verdict_json(("code", "make it work"), score=7, verdict="pass")
    ask = Scripted(teamed(critic=review))
    await perform(maestro, make_run(settings={"pass_at": 7.5}), ask)
    assert "code, revision 1" in [question.name for question in ask.asked]


async def test_a_revision_that_fails_leaves_the_result_as_it_was() -> None:
    script = teamed(review=verdict_json(("code", "make it work")), code="x = 1")
    ask = Scripted(script | {"code, revision 1": BackendFailed("broken")})
    _, _, stage = await perform(maestro, make_run(), ask)
    assert "x = 1" in ask.question("synthesis").messages[-1].content
    assert "code, revision 1: the answer stays as it was: broken" in ask.said
    assert "review 2" not in [question.name for question in ask.asked]
    assert stage.report["maestro"]["revisions"] == []


@pytest.mark.parametrize(("calls", "last"), [(6, "review"), (7, "code, revision 1"), (8, "review 2")])
async def test_revisions_end_where_the_budget_does(calls: int, last: str) -> None:
    ask = Scripted(teamed(critic=verdict_json(("code", "make it work"))))
    text, _, stage = await perform(maestro, make_run(budget=Budget(calls=calls)), ask)
    await stage.settle()
    assert text
    assert [question.name for question in ask.asked][-2:] == [last, "synthesis"]


async def test_where_the_budget_does_not_reach_for_a_synthesis_the_last_finding_is_the_answer() -> None:
    ask = Scripted(teamed(review=VERDICT, code="print(1)", synthesis=BudgetExceeded("nothing is left")))
    text, answer, stage = await perform(maestro, make_run(), ask)
    assert text == answer.text == "print(1)"
    assert any("what code found: nothing is left" in note for note in stage.notes)
    assert stage.report["maestro"]["plan"]["steps"]


async def test_contributions_are_measured_by_the_words_of_the_answer() -> None:
    ask = Scripted(
        teamed(
            review=VERDICT,
            research="Small molecules of the air scatter blue light more than red light.",
            code="The sun looks yellow because of that.",
            synthesis=(
                "Molecules of the air scatter blue light more than red. That is why the sun looks yellow. "
                "Penguins like cold water and fish."
            ),
        )
    )
    _, _, stage = await perform(maestro, make_run(), ask)
    told = stage.report["maestro"]["contributions"]
    assert [(each["step"], each["sentences"], each["share"]) for each in told] == [
        ("research", 1, 0.333),
        ("code", 1, 0.333),
    ]


async def test_analysis_and_critic_can_be_left_out_and_the_plan_bounded() -> None:
    ask = Scripted(teamed())
    settings = {"analysis": False, "critic": False, "specialists": 1}
    _, _, stage = await perform(maestro, make_run(settings=settings), ask)
    assert [step.name for step in stage.steps] == ["plan", "research", "synthesis"]
    report = stage.report["maestro"]
    assert report["verdicts"] == []
    assert report["plan"]["repaired"] == "it had more than 1 steps"
    assert report["plan"]["steps"] == [
        {"step": "research", "specialist": "research", "task": "read", "stage": 1}
    ]


async def test_a_caller_gets_no_more_specialists_than_the_deployment_lets() -> None:
    plan = plan_json(*((name, "work", 1) for name in ("research", "code", "creative")))
    ask = Scripted({"plan": plan, "review": VERDICT})
    run = make_run(settings={"specialists": 8})
    _, _, stage = await perform(maestro, run, ask, limits=StepLimits(max_specialists=2))
    assert len(stage.report["maestro"]["plan"]["steps"]) == 2


async def test_plan_and_verdicts_are_events_of_the_run() -> None:
    ask = Scripted(teamed(review=VERDICT))
    await perform(maestro, make_run(), ask)
    told = {kind: data for kind, data in ask.happened if kind in ("plan", "verdict")}
    assert [step["specialist"] for step in told["plan"]["steps"]] == ["research", "code"]
    assert told["verdict"]["passes"] is True
    assert told["verdict"]["scores"] == {"names the cause": 8, "is short": 8}


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"revisions": 4}, "revisions"),
        ({"specialists": 9}, "specialists"),
        ({"pass_at": 0}, "pass_at"),
        ({"judges": 2}, "judges"),
    ],
)
async def test_settings_beyond_the_limits_are_refused_by_their_name(
    settings: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await perform(maestro, make_run(settings=settings), Scripted({}))
    assert caught.value.param == f"orchestra.settings.{field}"


@pytest.mark.parametrize("recorded", [1, 4, 6, 7])
async def test_a_run_resumed_in_its_revisions_repeats_no_step(recorded: int) -> None:
    script = teamed(review=verdict_json(("code", "make it work")), synthesis="done")
    book, run = Book(), make_run()
    await performed(maestro, run, Scripted(script), book)
    names = list(book.kept)[:recorded]
    book.kept = {name: book.kept[name] for name in names}
    ask = Scripted(script)
    text, _ = await performed(maestro, run, ask, book)
    assert text == "done"
    assert not {question.name for question in ask.asked} & set(names)
