"""The debate with scripted debaters: its rounds, its judge, dropped debaters, and its limits."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest

from orchestration.errors import BackendFailed, InvalidRequest, NodeLost, NoNode, OrchestraError
from orchestration.messages import Budget, ChatMessage, GuidedDecoding, ModelCard, Run, Sampling, TextDelta
from orchestration.patterns.clipping import estimate_tokens
from orchestration.patterns.debate import debate
from orchestration.patterns.debating.critique import InvalidCritique, parse_critique
from tests.fixtures.eventually import eventually
from tests.orchestration.patterns.scripted import (
    AGENTS,
    Scripted,
    counting_clock,
    make_context,
    make_run,
    perform,
)
from tests.orchestration.patterns.test_step_cache import Book, performed

SUM = "What is 3 + 4?"
OPEN = "Tell me something about bees."
BEES = "bees make honey from the nectar of many flowers in spring"
WASPS = "wasps hunt insects and build their nests of paper in summer"
HORNETS = "hornets live together in large nests high up in old trees"
CRITIQUE = json.dumps({"strengths": "it is short", "weaknesses": "gives no reason", "mine": "I forgot one"})


def asked(text: str = SUM, **settings: Any) -> Run:
    return make_run(text, pattern="debate", settings=settings)


def critiques(count: int = 3, rounds: int = 2, said: str = CRITIQUE) -> dict[str, str | OrchestraError]:
    return {
        f"round {number} / debater {debater}: critique": said
        for number in range(2, rounds + 1)
        for debater in range(1, count + 1)
    }


def answers(*rounds: tuple[str | OrchestraError, ...]) -> dict[str, str | OrchestraError]:
    return {
        f"round {number} / debater {debater}": text
        for number, said in enumerate(rounds, 1)
        for debater, text in enumerate(said, 1)
    }


async def test_each_answers_alone_then_criticises_and_improves_until_all_agree() -> None:
    script = answers(("7", "8", "It is 7."), ("7", "It is seven.", "7")) | critiques()
    ask = Scripted(script)
    text, answer, context = await perform(debate, asked(), ask)
    assert text == answer.text == "7"
    first, second = ask.question("round 1 / debater 1"), ask.question("round 2 / debater 2")
    assert "8" not in first.messages[-1].content
    assert "Answers so far:\n- 8\n- 7\n- It is 7." in second.messages[-1].content
    assert "- I forgot one\n- gives no reason" in second.messages[-1].content
    compared = ask.question("round 2 / debater 2: critique").messages[-1].content
    assert "Your answer:\n8\n\nDebater 1:\n7\n\nDebater 3:\nIt is 7." in compared
    report = context.report["debate"]
    assert (report["ended"], report["agreement"], report["changes"]) == ("agreement", 1.0, 1)
    assert [told["agreement"] for told in report["rounds"]] == [0.667, 1.0]
    assert report["rounds"][1]["positions"][1] == {
        "debater": 2,
        "role": "research",
        "model": "m",
        "node": "n1",
        "answer": "It is seven.",
        "changed": True,
        "unchanged": False,
        "reason": "I forgot one",
        "critique": json.loads(CRITIQUE),
    }
    assert report["critiques"] == {"asked": 3, "usable": 3}
    assert json.loads(json.dumps(context.report.sections)) == context.report.sections
    assert not context.notes


async def test_all_of_a_round_speak_at_the_same_time() -> None:
    meet = {name: asyncio.Barrier(3) for name in ("1", "critique", "2")}
    names = {f"round 1 / debater {n}": meet["1"] for n in (1, 2, 3)}
    names |= {f"round 2 / debater {n}: critique": meet["critique"] for n in (1, 2, 3)}
    names |= {f"round 2 / debater {n}": meet["2"] for n in (1, 2, 3)}
    await perform(debate, asked(), Scripted(answers(("7", "8", "9")) | critiques(), meet=names))


async def test_agreement_in_the_first_round_is_the_end_and_costs_nothing_more() -> None:
    ask = Scripted(answers(("7", "3 + 4 = 7", "The answer is seven.")))
    text, _, context = await perform(debate, asked(), ask)
    assert text == "7"
    assert len(context.steps) == 3
    assert context.report["debate"]["ended"] == "agreement"


async def test_texts_that_mean_the_same_are_agreement_and_the_judge_writes_from_them() -> None:
    script = answers(("bees make honey from the nectar of flowers",) * 2) | {"synthesis": "bees do."}
    ask = Scripted(script)
    text, _, context = await perform(debate, asked(OPEN, debaters=2), ask)
    assert text == "bees do."
    final = ask.question("synthesis")
    assert (
        "- bees make honey from the nectar of flowers (held by 2 of 2 debaters)" in final.messages[-1].content
    )
    assert final.agent == "coordinator"
    assert context.report["debate"]["ended"] == "agreement"


async def test_enough_agreement_ends_the_debate_and_the_judge_sees_the_dissent() -> None:
    ask = Scripted(answers((BEES, BEES, WASPS)) | {"synthesis": "bees do."})
    text, _, context = await perform(debate, asked(OPEN, agree_at=0.6, judge="critic"), ask)
    assert text == "bees do."
    final = ask.question("synthesis")
    assert final.agent == "critic"
    told = f"- {BEES} (held by 2 of 3 debaters)\n- {WASPS} (held by 1 of 3 debaters)"
    assert told in final.messages[-1].content
    assert context.report["debate"]["agreement"] == 0.667


async def test_it_is_over_when_a_round_changes_no_mind_before_the_limit() -> None:
    script = answers(("7", "8", "9"), ("7", "It is 8.", "nine")) | critiques() | {"synthesis": "7"}
    _, _, context = await perform(debate, asked(rounds=5), Scripted(script))
    report = context.report["debate"]
    assert (report["ended"], len(report["rounds"]), report["changes"]) == ("no change", 2, 0)
    assert [position["reason"] for position in report["rounds"][1]["positions"]] == ["", "", ""]


async def test_it_is_over_at_the_limit_of_rounds() -> None:
    script = answers(("7", "8", "9"), ("8", "9", "7"), ("9", "7", "8")) | critiques(rounds=3)
    _, _, context = await perform(debate, asked(rounds=3), Scripted(script))
    report = context.report["debate"]
    assert (report["ended"], len(report["rounds"]), report["changes"]) == ("round limit", 3, 6)
    assert not context.notes


@pytest.mark.parametrize(
    "synthesis",
    [
        "wasps do.",
        "by most debaters it is said that bees make honey.",
        "bees make honey, after a debate.",
        "both of the answers agree that bees make honey.",
        "before that, the second answer is right: bees make honey.",
        " ",
    ],
    ids=["another text", "the debaters", "the debate", "their answers", "one of them", "nothing"],
)
async def test_the_debaters_have_the_last_word_where_the_synthesis_has_another(synthesis: str) -> None:
    ask = Scripted(answers((BEES, BEES, WASPS), (BEES, BEES, WASPS)) | {"synthesis": synthesis})
    text, answer, context = await perform(debate, asked(OPEN), ask)
    assert text == answer.text == BEES
    assert any("most" in note for note in context.notes)


async def test_a_synthesis_stands_where_no_two_agree() -> None:
    said = (BEES, WASPS, HORNETS)
    ask = Scripted(answers(said, said) | {"synthesis": "Some insects live together."})
    text, _, context = await perform(debate, asked(OPEN), ask)
    assert (text, context.notes) == ("Some insects live together.", [])


@pytest.mark.parametrize(
    ("question", "said", "answer"),
    [
        (SUM, ("7", "It is 7.", "8"), "7"),
        ("Which is a bird? A) bat B) owl C) bee", ("B", "A", "(B) owl"), "B"),
    ],
)
async def test_a_number_or_an_option_is_never_rewritten(
    question: str, said: tuple[str, ...], answer: str
) -> None:
    ask = Scripted(answers(said, said) | {"synthesis": "It is 12."})
    text, _, _ = await perform(debate, asked(question), ask)
    assert text == answer
    assert "synthesis" not in {asking.name for asking in ask.asked}


@pytest.mark.parametrize(
    ("visible", "seen", "unseen"),
    [
        ("answers", "Debater 1:\n8\n\nDebater 3:\n8", "criticism"),
        ("answers and critique", "Debater 1:\n8\n(Its criticism: gives no reason)", "of 3"),
        ("summary", "Position 1:\n8 (held by 2 of 3 debaters)\n\nPosition 2:\n7 (held by 1 ", "Debater 1"),
    ],
)
async def test_what_each_sees_of_the_others_can_be_set(visible: str, seen: str, unseen: str) -> None:
    script = answers(("7", "8", "9"), ("8", "7", "8"), ("8", "8", "8")) | critiques(rounds=3)
    ask = Scripted(script)
    await perform(debate, asked(visible=visible, rounds=3), ask)
    content = ask.question("round 3 / debater 2: critique").messages[-1].content
    assert seen in content
    assert unseen not in content


async def test_models_and_roles_take_turns_and_a_role_may_be_a_standpoint() -> None:
    models = [ModelCard(name=name, context=8192, parameters=1) for name in ("big", "small")]
    ask = Scripted(answers((BEES, WASPS, HORNETS, BEES)))
    run = asked(OPEN, debaters=4, rounds=1, roles=["critic", "Bees are a danger."])
    run = run.model_copy(update={"sampling": Sampling(seed=5, temperature=0)})
    _, _, context = await perform(debate, run, ask, models=models)
    first, second, third, _ = (ask.question(f"round 1 / debater {n}") for n in (1, 2, 3, 4))
    assert [(each.agent, each.model) for each in (first, second)] == [
        ("critic", "big"),
        ("coordinator", "small"),
    ]
    assert second.messages[0].content == "Argue from this standpoint: Bees are a danger."
    assert [each.sampling.seed for each in (first, second, third)] == [5, 6, 7]
    assert first.sampling.temperature == 0.7  # debater 3 is the same model in the same role
    roles = [each["role"] for each in context.report["debate"]["rounds"][0]["positions"]]
    assert roles == ["critic", "Bees are a danger."] * 2
    assert ask.question("synthesis").sampling.temperature == 0


async def test_debaters_that_differ_keep_the_temperature_of_their_role() -> None:
    ask = Scripted(answers(("7", "8", "7"), ("7", "7", "7")) | critiques())
    await perform(debate, asked(), ask)
    agents = [ask.question(f"round 1 / debater {n}").agent for n in (1, 2, 3)]
    assert agents == ["reasoning", "research", "coordinator"]
    assert all(question.sampling.temperature is None for question in ask.asked)


async def test_a_debater_that_fails_drops_out_and_the_others_go_on() -> None:
    script = answers(("7", BackendFailed("broken"), "8"), ("7", "", "7")) | critiques()
    ask = Scripted(script)
    text, _, context = await perform(debate, asked(), ask)
    assert text == "7"
    assert context.notes == ["went on without debater 2 (research): broken"]
    report = context.report["debate"]
    assert report["dropped"] == [{"debater": 2, "round": 1, "reason": "broken"}]
    assert [position["debater"] for position in report["rounds"][1]["positions"]] == [1, 3]
    assert "Debater 2" not in ask.question("round 2 / debater 1").messages[-1].content


async def test_one_that_is_left_alone_says_its_answer_with_a_note() -> None:
    gone = NodeLost("n1 is gone")
    script = answers(("7", "8", "9"), (gone, "It is 8.", gone)) | critiques()
    text, answer, context = await perform(debate, asked(rounds=5), Scripted(script))
    assert text == answer.text == "It is 8."
    assert context.report["debate"]["ended"] == "too few debaters"
    assert context.notes[-1] == "one debater alone is left: this is the best position there was"
    assert len(context.notes) == 3


async def test_all_that_fail_in_the_first_round_are_the_first_ones_error() -> None:
    script = answers((NoNode("none"), BackendFailed("broken"), BackendFailed("broken")))
    with pytest.raises(NoNode, match="none"):
        await perform(debate, asked(), Scripted(script))


async def test_all_that_fail_later_leave_the_best_position_there_was() -> None:
    gone = NodeLost("n1 is gone")
    script = answers(("8", "7", "7"), (gone, gone, gone)) | critiques()
    text, _, context = await perform(debate, asked(), Scripted(script))
    assert text == "7"
    assert "no debater is left: this is the best position there was" in context.notes


async def test_a_model_that_always_answers_garbage_drops_out_with_a_note() -> None:
    script = answers(("7", "?! ... --", "8"), ("8", "", "8")) | critiques()
    text, _, context = await perform(debate, asked(), Scripted(script))
    assert text == "8"
    assert context.notes == ["went on without debater 2 (research): says nothing that makes sense"]


async def test_garbage_from_all_makes_the_coordinator_answer_alone() -> None:
    ask = Scripted(answers(("...", "?", "the the " * 40)) | {"answer": "7"})
    text, _, context = await perform(debate, asked(), ask)
    assert text == "7"
    assert context.notes[-1] == "no debater has an answer; the coordinator answers alone"
    assert context.steps[-1].name == "answer"


async def test_a_new_answer_that_is_none_leaves_the_old_one_in_place() -> None:
    script = answers(("7", "8", "8"), ("8", "I'm ready to help.", "!!!")) | critiques()
    text, _, context = await perform(debate, asked(), Scripted(script))
    assert text == "8"
    second, third = context.report["debate"]["rounds"][1]["positions"][1:]
    for position in (second, third):
        assert (position["answer"], position["unchanged"], position["changed"]) == ("8", True, False)
        assert position["reason"] == "the new one did not answer the question"


@pytest.mark.parametrize(
    "said",
    [
        "no form",
        BackendFailed("no guides here"),
        '{"strengths": "...", "weaknesses": "none at all", "mine": "a"}',
    ],
)
async def test_a_critique_that_cannot_be_used_is_left_out_of_the_improvement(
    said: str | BackendFailed,
) -> None:
    script: dict[str, Any] = answers(("7", "8", "8"), ("8", "8", "8")) | critiques()
    ask = Scripted(script | {"round 2 / debater 1: critique": said})
    text, _, context = await perform(debate, asked(), ask)
    assert text == "8"
    assert context.report["debate"]["critiques"] == {"asked": 3, "usable": 2}
    assert "Remarks" not in ask.question("round 2 / debater 1").messages[-1].content
    assert any("goes on without its critique" in told for told in ask.said)


def test_a_critique_that_was_cut_off_is_none() -> None:
    with pytest.raises(InvalidCritique):
        parse_critique(CRITIQUE[:-5])


@pytest.mark.parametrize(
    ("calls", "steps", "ended"),
    [
        (1, ["answer"], None),
        (2, ["round 1 / debater 1", "synthesis"], "too few debaters"),
        (3, ["round 1 / debater 1", "round 1 / debater 2"], "budget"),
        (6, 6, "budget"),
        (9, 9, "round limit"),
    ],
)
async def test_a_budget_of_calls_ends_it_with_the_best_there_is(
    calls: int, steps: list[str] | int, ended: str | None
) -> None:
    script = answers(("7", "8", "9"), ("7", "8", "8")) | critiques() | {"synthesis": "7"}
    ask = Scripted(script)
    run = asked().model_copy(update={"budget": Budget(calls=calls)})
    text, answer, context = await perform(debate, run, ask)
    await context.settle()
    assert text == answer.text != ""
    names = [question.name for question in ask.asked]
    if ended == "too few debaters":
        assert isinstance(steps, list)
        steps = steps[:1]  # what the one says is the answer
    assert names == steps or len(names) == steps
    assert context.report.sections.get("debate", {}).get("ended") == ended
    if calls < 9:
        assert any(note.startswith(f"to stay within {calls} calls: without") for note in context.notes)


async def test_a_judge_that_fails_leaves_the_best_position_with_a_note() -> None:
    said = (WASPS, BEES, BEES)
    script = answers(said, said) | critiques() | {"synthesis": NoNode("none")}
    text, answer, context = await perform(debate, asked(OPEN), Scripted(script))
    assert text == answer.text == BEES
    assert context.notes == ["no synthesis, but the position that most hold: none"]


async def test_the_callers_form_and_instructions_reach_every_answer_but_no_critique() -> None:
    guide = GuidedDecoding(json_schema={"type": "object"})
    system = ChatMessage(role="system", content="Speak like a pirate.")
    run = asked(rounds=2).model_copy(
        update={"guide": guide, "messages": (system, ChatMessage(role="user", content=SUM))}
    )
    script = answers(('{"a": 1}', '{"a": 2}', '{"a": 3}'), ('{"a":1}', '{"a": 2}', "no")) | critiques()
    ask = Scripted(script | {"synthesis": '{"a": 1}'})
    _, _, context = await perform(debate, run, ask)
    for question in ask.asked:
        if question.name.endswith("critique"):
            assert question.guide is not None
            assert question.guide != guide
        else:
            assert question.guide == guide
            assert question.messages[0] == system
    positions = context.report["debate"]["rounds"][1]["positions"]
    assert [(each["changed"], each["unchanged"]) for each in positions] == [
        (False, False),
        (False, False),
        (False, True),
    ]


@pytest.mark.parametrize("visible", ["answers", "answers and critique", "summary"])
async def test_every_step_of_six_long_winded_debaters_stays_bounded(visible: str) -> None:
    words = " ".join(f"w{number}" for number in range(2_000))
    long: dict[str, str | OrchestraError] = {
        f"round {number} / debater {debater}": f"{'abcdefgh'[debater + number - 2]}{words}"
        for number in (1, 2, 3)
        for debater in range(1, 7)
    }
    remark = json.dumps(dict.fromkeys(("strengths", "weaknesses", "mine"), "x " * 59))
    ask = Scripted(long | critiques(6, 3, remark))
    run = asked("word " * 4_000, debaters=6, rounds=3, visible=visible)
    await perform(debate, run, ask)
    assert len(ask.asked) == 6 + 2 * 12 + 1
    for question in ask.asked:
        assert question.sampling.max_tokens is not None
        inside = sum(estimate_tokens(message.content) for message in question.messages)
        assert inside + question.sampling.max_tokens < 2048


async def test_leaving_in_the_middle_of_a_round_stops_all_debaters() -> None:
    barrier = asyncio.Barrier(4)
    names = {f"round 2 / debater {n}: critique": barrier for n in (1, 2, 3)}
    ask = Scripted(answers(("7", "8", "9")) | critiques(), meet=names)
    run = asked()
    context = make_context(run, ask, agents=AGENTS, clock=counting_clock())

    async def hear() -> None:
        async with aclosing(debate(run, context)) as items:
            async for _ in items:
                raise AssertionError("nothing is said before the end")

    hearing = asyncio.ensure_future(hear())
    await eventually(lambda: ask.open_now == 3)
    hearing.cancel()
    await asyncio.wait([hearing])
    assert hearing.cancelled()
    assert ask.open_now == 0


async def test_leaving_in_the_middle_of_the_synthesis_stops_it() -> None:
    said = (BEES, WASPS, HORNETS)
    ask = Scripted(answers(said, said) | critiques() | {"synthesis": "Some insects sting."})
    run = asked(OPEN)
    context = make_context(run, ask, agents=AGENTS, clock=counting_clock())
    async with aclosing(debate(run, context)) as items:
        assert await anext(items) == TextDelta(text="Some")
    assert ask.open_now == 0


@pytest.mark.parametrize("recorded", [1, 3, 4, 8])
async def test_a_resumed_debate_asks_no_debater_twice(recorded: int) -> None:
    script = answers((BEES, WASPS, HORNETS), (BEES, WASPS, WASPS)) | critiques()
    script |= {"synthesis": "wasps hunt."}
    book, run = Book(), asked(OPEN)
    await performed(debate, run, Scripted(script), book)
    names = list(book.kept)[:recorded]
    book.kept = {name: book.kept[name] for name in names}
    ask = Scripted(script)
    text, context = await performed(debate, run, ask, book)
    assert text == "wasps hunt."
    assert not {question.name for question in ask.asked} & set(names)
    assert len(context.steps) == 10


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"debaters": 7}, "debaters"),
        ({"debaters": 1}, "debaters"),
        ({"rounds": 6}, "rounds"),
        ({"visible": "everything"}, "visible"),
        ({"roles": ["x"] * 7}, "roles"),
        ({"judge": "nobody"}, "judge"),
        ({"agree_at": 0.5}, "agree_at"),
        ({"volume": 11}, "volume"),
    ],
)
async def test_settings_beyond_the_limits_are_refused_by_their_name(
    settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await perform(debate, asked(**settings), Scripted({}))
    assert caught.value.param == f"orchestra.settings.{field}"
    assert caught.value.status == 400


async def test_rounds_positions_and_the_judges_word_are_events_of_the_run() -> None:
    ask = Scripted(answers(("7", "8", "7"), ("7", "7", "7")) | critiques())
    await perform(debate, asked(), ask)
    told = [(kind, data) for kind, data in ask.happened if kind in ("round", "position", "debate_round")]
    once = ["round", "position", "position", "position", "debate_round"]
    assert [kind for kind, _ in told] == once * 2
    assert told[-1][1]["over"] == "agreement"
    assert told[4][1]["groups"] == [[1, 3], [2]]
