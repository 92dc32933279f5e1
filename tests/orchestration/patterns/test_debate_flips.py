"""What later rounds of a debate may change of the first one: limited by trust, counted and reported."""

from __future__ import annotations

import json

import pytest

from orchestration.messages import ModelCard, ToolResult
from orchestration.patterns import RunContext
from orchestration.patterns.debate import debate
from orchestration.trust.counts import Counts
from orchestration.trust.observation import VoterAnswer
from orchestration.trust.run_observations import answers_in, flip_in, verified_in
from orchestration.trust.trust import Trust
from tests.orchestration.patterns.scripted import AGENTS, Scripted, counting_clock, make_context
from tests.orchestration.patterns.test_debate import BEES, HORNETS, OPEN, WASPS, answers, asked, critiques
from tests.orchestration.patterns.test_ensemble import Running, play

EQUAL = {"one": 0.7, "two": 0.7, "three": 0.7, "four": 0.7}
WISE = EQUAL | {"three": 0.97}
PARROT = "wasps are said by others to be more important than bees"


async def debated(
    *rounds: tuple[str, ...],
    priors: dict[str, float] = EQUAL,
    text: str = "What is 3 + 4?",
    trust: Trust | None = None,
) -> tuple[str, RunContext]:
    models = [*priors][: len(rounds[0])]
    script = answers(*rounds) | critiques(len(models), len(rounds))
    script["synthesis"] = "what they have in common is wings."
    ask = Scripted(script)
    run = asked(text, models=models, rounds=len(rounds), debaters=len(models))
    context = make_context(run, ask, agents=AGENTS, clock=counting_clock())
    context.trust = trust or Trust(prior=lambda name: priors.get(name, 0.6))
    _, answer = await play(debate, context)
    assert json.loads(json.dumps(context.report.sections)) == context.report.sections
    return answer.text, context


def leads(context: RunContext) -> list[tuple[int, str, str, bool]]:
    flips = [flip for flip in context.report["debate"]["flips"] if flip["debater"] is None]
    return [(flip["round"], flip["from"], flip["to"], flip["accepted"]) for flip in flips]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("7", "7", "8"), ("8", "8", "8")),
        (("7", "7", "8"), ("7", "8", "8")),
        (("7", "7", "8", "8", "7"), ("8",) * 5),
        (("7", "7", "8", "9"), ("8",) * 4),
    ],
    ids=["all follow one", "one of two follows", "the many follow the few", "of three positions"],
)
async def test_a_majority_that_only_follows_another_is_bounded_and_the_first_round_stands(
    first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    priors = {f"model {n}": 0.7 for n in range(len(first))}
    text, context = await debated(first, second, priors=priors)
    assert text == "7"
    report = context.report["debate"]
    assert (report["answer"], report["flipped"], report["first_round_stands"]) == ("7", False, True)
    assert leads(context) == [(2, "7", "8", False)]
    assert any("the first round's answer “7” stands" in note for note in context.notes)
    assert flip_in(context.report.sections) == "refused"


async def test_a_change_with_more_trust_behind_it_is_reported_as_a_flip() -> None:
    # the two weigh 1.22 each, the third 2.19: together the two lead, until they follow it
    priors = {"one": 0.65, "two": 0.65, "three": 0.83}
    text, context = await debated(("7", "7", "8"), ("8", "8", "8"), priors=priors)
    report = context.report["debate"]
    assert (text, report["flipped"], report["first_round_stands"]) == ("8", True, False)
    assert leads(context) == [(2, "7", "8", True)]
    (lead,) = [flip for flip in report["flips"] if flip["debater"] is None]
    assert lead["to_weight"] > lead["from_weight"] > 2
    assert any(note.startswith("the debate changed its answer from “7” to “8”") for note in context.notes)
    assert flip_in(context.report.sections) == "taken"


async def test_every_change_of_mind_is_reported_with_the_weights_of_both_positions() -> None:
    _, context = await debated(("7", "7", "8"), ("7", "7", "7"))
    (flip,) = context.report["debate"]["flips"]
    assert (flip["round"], flip["who"], flip["from"], flip["to"]) == (2, "debater 3", "8", "7")
    assert flip["from_weight"] == pytest.approx(flip["to_weight"] / 2, abs=0.01)
    assert flip["share"] == pytest.approx(1 / 3, abs=0.01)
    assert (flip_in(context.report.sections), context.notes) == (None, [])


async def test_a_new_position_counts_whole_where_all_adopt_it() -> None:
    text, context = await debated(("7", "7", "8"), ("9", "9", "9"))
    assert text == "9"
    assert {flip.get("share") for flip in context.report["debate"]["flips"]} == {1.0, None}


async def test_a_debater_that_returns_to_its_own_answer_counts_whole_again() -> None:
    text, context = await debated(("7", "7", "8"), ("8", "7", "7"), ("7", "7", "8"))
    report = context.report["debate"]
    assert (text, report["flipped"], report["first_round_stands"]) == ("7", False, False)
    assert [flip["share"] for flip in report["flips"] if flip["round"] == 3 and flip["debater"]] == [
        1.0,
        1.0,
    ]


async def test_the_most_trusted_leads_where_its_record_says_that_company_does_not_help() -> None:
    priors = {"one": 0.7, "two": 0.7, "three": 0.8}
    text, context = await debated(("7", "7", "8"), ("7", "7", "8"), priors=priors)
    assert text == "7"
    shown = {"three": {"user": Counts(right=80, wrong=20)}}
    alone = Trust(shown, vote_vs_best=Counts(wrong=30), prior=priors.__getitem__)  # type: ignore[arg-type]
    text, context = await debated(("7", "7", "8"), ("7", "7", "8"), priors=priors, trust=alone)
    assert (text, context.report["debate"]["first_round_stands"]) == ("8", True)
    text, context = await debated(("7", "7", "8"), ("7", "7", "7"), priors=priors, trust=alone)
    assert (text, context.report["debate"]["flipped"]) == ("7", True), "it came round itself"


async def test_without_a_leader_of_the_first_round_the_debate_decides() -> None:
    text, context = await debated(("7", "8", "9"), ("7", "8", "8"))
    assert (text, leads(context), context.notes) == ("8", [], [])


async def test_three_of_one_family_agree_wholly_and_end_the_debate() -> None:
    priors = {"qwen2.5-7b-instruct": 0.7, "qwen2.5-14b-instruct": 0.7, "qwen2.5-14b-instruct-awq": 0.7}
    _, context = await debated(("7", "7", "7"), ("7", "7", "7"), priors=priors)
    report = context.report["debate"]
    assert (report["ended"], report["agreement"], len(report["rounds"])) == ("agreement", 1.0, 1)


async def test_texts_that_agreed_stay_against_others_and_are_not_rewritten() -> None:
    text, context = await debated((BEES, BEES, WASPS), (PARROT, PARROT, WASPS), text=OPEN)
    assert text == BEES
    assert context.report["debate"]["first_round_stands"]
    assert "synthesis" not in {step.name for step in context.steps}


async def test_texts_of_which_each_says_something_else_have_no_lead_to_flip() -> None:
    text, context = await debated((BEES, WASPS, HORNETS), (WASPS, WASPS, HORNETS), text=OPEN)
    assert text == "what they have in common is wings."
    assert leads(context) == []


async def test_the_first_answers_teach_of_the_models_by_what_the_debate_came_to() -> None:
    _, context = await debated(("7", "8", "7"), ("7", "7", "7"))
    voters = context.report["debate"]["voices"]
    assert [(each["model"], each["answer"], each["agrees"], each["group"]) for each in voters] == [
        ("one", "7", True, 0),
        ("two", "8", False, 1),
        ("three", "7", True, 0),
    ]
    assert {each["weight"] for each in voters} == {round(Trust(prior=EQUAL.__getitem__).weight("one"), 3)}
    assert answers_in(context.report.sections, "one") == tuple(
        VoterAnswer(model=name, group=group) for name, group in (("one", 0), ("two", 1), ("three", 0))
    )


async def test_an_answer_that_no_first_one_gave_credits_none_of_them() -> None:
    _, context = await debated(("7", "7", "8"), ("9", "9", "9"))
    assert [each["group"] for each in context.report["debate"]["voices"]] == [1, 1, 2]


async def test_a_debater_without_a_sensible_answer_is_recorded_as_wrong() -> None:
    _, context = await debated(("7", "?! ... --", "7"), ("7", "7", "7"))
    assert [each["group"] for each in context.report["debate"]["voices"]] == [0, None, 0]


async def test_the_most_trusted_writes_the_synthesis_of_those_that_debate() -> None:
    said = (BEES, WASPS, HORNETS)
    cards = [ModelCard(name=name, context_tokens=8192, parameters=1) for name in (*WISE, "other")]
    ask = Scripted(answers(said, said) | critiques() | {"synthesis": "some insects."})
    run = asked(OPEN, models=["one", "two", "three"])
    context = make_context(run, ask, agents=AGENTS, clock=counting_clock(), models=cards)
    context.trust = Trust(prior=(WISE | {"other": 0.99}).__getitem__)
    await play(debate, context)
    assert ask.question("synthesis").model == "three"


async def test_a_program_of_a_later_round_is_tested_again_and_passes_for_any_debater() -> None:
    square, plus, times = (
        f"```python\ndef double(x):\n    return {body}\n```" for body in ("x ** 2", "x + 1", "2 * x")
    )
    again = "```python\ndef double(number):\n    return number * 2\n```"
    script = answers((plus, plus, square), (plus, times, again)) | critiques()
    ask = Running(script, tool_results={"code": {"python": ToolResult()}})
    run = asked("Write a Python function double(x), so that double(3) == 6 and double(0) == 0.")
    context = make_context(run, ask, agents=AGENTS, clock=counting_clock())
    _, answer = await play(debate, context)
    report = context.report["debate"]
    assert answer.text == times
    assert (report["examples_passed"], verified_in(context.report.sections)) == (1, 1.0)
    assert [flip["accepted"] for flip in report["flips"] if flip["debater"] is None] == [True]
    assert [voter["group"] for voter in report["voices"]] == [2, 2, 1], "of two examples square passes one"
