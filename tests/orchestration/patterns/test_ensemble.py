"""The patterns that vote, with scripted voters: their order, the end of the vote, the stream and the
report."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestration.errors import BackendFailed, InvalidGuide, InvalidRequest, NoNode, UnknownModel
from orchestration.messages import (
    Budget,
    Finish,
    GuidedDecoding,
    ModelCard,
    Run,
    Sampling,
    TextDelta,
    ToolResult,
)
from orchestration.patterns import (
    GenerationRequest,
    ResumeFilter,
    RunContext,
    StepCache,
    StepRecord,
    StepResult,
)
from orchestration.patterns.base import StepAccepted, ToolUse
from orchestration.patterns.definition import PatternOutput
from orchestration.patterns.ensemble import ensemble
from orchestration.patterns.self_consistency import self_consistency
from orchestration.trust.trust import Trust
from tests.orchestration.patterns.scripted import (
    AGENTS,
    Scripted,
    counting_clock,
    make_context,
    make_run,
    perform,
)

SUM = "What is 3 + 4?"
OPEN = "Tell me something about bees."


@dataclass
class Paced(Scripted):
    """Voters named in `turns` answer one after another, in that order; those named in `mute` write so many
    words, and never end."""

    turns: Sequence[str] = ()
    mute: Mapping[str, int] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    _over: dict[str, asyncio.Event] = field(default_factory=dict)

    async def generate(
        self, question: GenerationRequest
    ) -> AsyncGenerator[StepAccepted | TextDelta | Finish, None]:
        name = question.name
        if name in self.turns[1:]:
            await self._event(self.turns[self.turns.index(name) - 1]).wait()
            for _ in range(5):  # until who was before has been heard
                await asyncio.sleep(0)
        try:
            for _ in range(self.mute.get(name, 0)):
                yield TextDelta(text="um ")
            if name in self.mute:
                await asyncio.get_running_loop().create_future()
            async with aclosing(super().generate(question)) as items:
                async for item in items:
                    yield item
        except (asyncio.CancelledError, GeneratorExit):
            self.stopped.append(name)
            raise
        finally:
            self._event(name).set()

    def _event(self, name: str) -> asyncio.Event:
        return self._over.setdefault(name, asyncio.Event())


def set_up(run: Run, ask: Scripted, **said: Any) -> RunContext:
    return make_context(run, ask, agents=AGENTS, clock=counting_clock(), **said)


Perform = Callable[[Run, RunContext], PatternOutput]


async def play(pattern: Perform, context: RunContext) -> tuple[list[str], StepResult]:
    """The parts that the caller gets, and the answer."""
    parts: list[str] = []
    answer = None
    async with aclosing(pattern(context.run, context)) as items:
        async for item in items:
            if isinstance(item, StepResult):
                answer = item
            else:
                parts.append(item.text)
    assert answer is not None
    if "Correction" not in "".join(parts):
        assert answer.text == "".join(parts)
    return parts, answer


def voted(**settings: Any) -> Run:
    text = settings.pop("text", SUM)
    return make_run(text, pattern="ensemble", settings=settings)


async def test_the_majority_wins_and_the_report_has_each_answer() -> None:
    ask = Scripted({"voice 1": "The answer is 8.", "voice 2": "It is seven.", "voice 3": "3 + 4 = 7"})
    text, answer, context = await perform(ensemble, voted(early=False), ask)
    assert text == answer.text == "It is seven."
    report = context.report["ensemble"]
    assert (report["kind"], report["agreement"], report["stopped_early"]) == ("number", 0.667, False)
    assert [voter["agrees"] for voter in report["voices"]] == [False, True, True]
    assert (report["voices"][0]["answer"], report["voices"][0]["node"]) == ("The answer is 8.", "n1")
    assert report["dissent"] == [{"answer": "The answer is 8.", "voices": [1], "weight": 1.0, "value": "8"}]
    assert json.loads(json.dumps(context.report.sections)) == context.report.sections
    assert [kind for kind, _ in ask.happened].count("vote") >= 1
    assert context.notes == ["2 of 3 voices agree; others: “8”"]


class Filtered(Scripted):
    """Lines that begin with “I” end as filtered content."""

    async def generate(
        self, question: GenerationRequest
    ) -> AsyncGenerator[StepAccepted | TextDelta | Finish, None]:
        async with aclosing(super().generate(question)) as items:
            async for item in items:
                if isinstance(item, Finish) and self._line(question).startswith("I"):
                    item = item.model_copy(update={"reason": "content_filter"})
                yield item


async def test_an_answer_that_a_filter_cut_off_has_no_vote() -> None:
    run = voted(early=False)
    ask = Filtered({"voice 1": "I", "voice 2": "I", "voice 3": "bees make honey"})
    text, _answer, context = await perform(ensemble, run, ask)
    assert text == "bees make honey"
    assert [step.error.code for step in context.steps if step.error] == ["content_filter"] * 2


async def test_voices_speak_at_once() -> None:
    ask = Scripted({}, meet=dict.fromkeys(("voice 1", "voice 2", "voice 3"), asyncio.Barrier(3)))
    await perform(ensemble, voted(), ask)
    assert ask.most_open == 3


async def test_two_of_three_that_agree_end_the_vote_and_stop_the_third() -> None:
    script = {"voice 1": "so 3 + 4 is 7", "voice 2": "I say 3 + 4 = 7"}
    ask = Paced(script, mute={"voice 3": 2})
    async with asyncio.timeout(5):
        text, _, context = await perform(ensemble, voted(), ask)
    assert text == "so 3 + 4 is 7"
    assert ask.stopped == ["voice 3"]
    report = context.report["ensemble"]
    assert report["stopped_early"] is True
    assert (report["calls_cut"], report["tokens_saved"]) == (
        1,
        5,
    )  # of about 7, as the others wrote, 2 were written
    assert report["test"]["probability"] == 1


async def test_with_early_off_all_voters_are_heard() -> None:
    ask = Paced({"coordinator": "7"}, turns=("voice 1", "voice 2", "voice 3"))
    _, _, context = await perform(ensemble, voted(early=False), ask)
    assert len(context.steps) == 3
    assert ask.stopped == []


async def test_the_first_answer_does_not_wait_for_the_slowest_voice() -> None:
    ask = Paced({"voice 1": "7", "voice 2": "8"}, mute={"voice 3": 0}, turns=("voice 1", "voice 2"))
    context = set_up(voted(), ask)
    async with asyncio.timeout(5), aclosing(ensemble(context.run, context)) as items:
        first = await anext(items)
    assert isinstance(first, TextDelta)
    assert first.text == "7"
    assert ask.stopped == ["voice 3"]  # the caller left


async def test_an_answer_that_was_streamed_too_soon_is_corrected() -> None:
    ask = Paced(
        {"voice 1": "7", "voice 2": "8", "voice 3": "It is 8."}, turns=("voice 1", "voice 2", "voice 3")
    )
    parts, answer = await play(ensemble, set_up(voted(), ask))
    assert parts == ["7", "\n\nCorrection: 8"]
    assert answer.text == "8"


async def test_the_streamed_answer_stays_where_it_is_tied() -> None:
    ask = Paced({"voice 1": "7", "voice 2": "8"}, turns=("voice 2", "voice 1"))
    context = set_up(voted(samples=2), ask)
    parts, _ = await play(ensemble, context)
    assert parts == ["8"]
    assert context.report["ensemble"]["answer"] == "8"
    assert context.report["ensemble"]["voices"][1]["agrees"]


async def test_a_likely_answer_is_streamed_while_others_are_pending_and_stays() -> None:
    turns = tuple(f"voice {number}" for number in range(1, 6))
    ask = Paced({"coordinator": "7", "voice 3": "9"}, turns=turns)
    context = set_up(voted(samples=5, confidence=1, stream_at=0.75), ask)
    parts: list[str] = []
    async with aclosing(ensemble(context.run, context)) as items:
        async for item in items:
            if isinstance(item, TextDelta):
                parts.append(item.text)
                assert len(context.steps) < 4
    assert parts == ["7"]


async def test_a_run_that_is_taken_up_goes_on_from_what_its_caller_has() -> None:
    for prefix, parts in (("It ", ["is 7."]), ("It is 7.", []), ("8", ["\n\nIt is 7."])):
        context = set_up(voted(), Scripted({"coordinator": "It is 7."}))
        context.resume_filter = ResumeFilter(prefix, tokens=1)
        told = [item async for item in ensemble(context.run, context) if isinstance(item, TextDelta)]
        new = [context.resume_filter.new(part) for part in told]
        assert [part.text for part in new if part is not None] == parts


async def test_a_run_that_is_taken_up_asks_no_voice_again_that_has_ended() -> None:
    kept: dict[str, StepRecord] = {}

    class Book:
        async def keep(self, said: StepRecord) -> StepRecord:
            return kept.setdefault(said.step.name, said)

    script = {"voice 1": "7", "voice 2": "8", "voice 3": "It is 8."}
    paced = Paced(script, mute={"voice 3": 0}, turns=("voice 1", "voice 2"))
    context = set_up(voted(early=False), paced, step_cache=StepCache(Book()))
    async with aclosing(ensemble(context.run, context)) as items:
        assert isinstance(await anext(items), TextDelta)  # then its coordinator dies
    again = set_up(context.run, ask := Scripted(script), step_cache=StepCache(Book(), dict(kept)))
    _, answer = await play(ensemble, again)
    assert [question.name for question in ask.asked] == ["voice 3"]
    assert answer.text.endswith("8")


async def test_free_texts_agree_by_what_they_mean_and_the_medoid_speaks() -> None:
    ask = Scripted(
        {
            "voice 1": "Wax is what they build their combs from, mostly in summer.",
            "voice 2": "Honey is made by bees from nectar that they gather.",
            "voice 3": "Honey comes from the nectar that bees gather in flowers.",
        }
    )
    text, _, context = await perform(ensemble, voted(text=OPEN, early=False), ask)
    assert text.startswith("Honey")
    report = context.report["ensemble"]
    assert (report["kind"], report["agreement"]) == ("text", 0.667)
    assert report["dissent"][0]["answer"].startswith("Wax")


async def test_without_an_embedding_model_texts_are_compared_by_their_words_with_a_note() -> None:
    class Blind(Scripted):
        async def embed(self, texts: Sequence[str]) -> list[list[float]]:
            raise NoNode("no live node serves an embedding model")

    ask = Blind(
        {
            "voice 1": "Bees gather nectar from flowers and make honey of it.",
            "voice 2": "The moon circles around the earth once each month.",
            "voice 3": "Nectar from flowers is what bees gather and make honey of.",
        }
    )
    text, _, context = await perform(ensemble, voted(text=OPEN, early=False), ask)
    assert "honey" in text
    assert [note for note in context.notes if "compared by their words" in note] == [
        "the answers were compared by their words: no live node serves an embedding model"
    ]


async def test_no_note_on_words_where_texts_were_compared_only_on_the_way() -> None:
    class Blind(Paced):
        async def embed(self, texts: Sequence[str]) -> list[list[float]]:
            raise NoNode("no live node serves an embedding model")

    words = "In leap years there are as many as twenty-nine days in that month."
    said = "In a leap year February has 29 days. The answer is 29."
    turns = ("voice 1", "voice 2", "voice 3", "voice 4")
    ask = Blind(dict(zip(turns, (words, said, "29", said), strict=True)), turns=turns)
    run = voted(text="Days of February in leap years?", early=False, samples=4)
    _, _, context = await perform(ensemble, run, ask)
    assert context.report["ensemble"]["kind"] == "number"
    assert not [note for note in context.notes if "compared by their words" in note]


DOUBLE = "Write a Python function double(x), so that double(2) == 4 and double(0) == 0."


@dataclass
class Running(Paced):
    """The code agent's tool runs the program, as Python's own `exec` does."""

    async def use(self, use: ToolUse) -> ToolResult:
        self.used.append(use)
        space: dict[str, Any] = {}
        exec(use.arguments["code"], space)
        outcomes = []
        for example in use.arguments["examples"]:
            value = repr(eval(example["call"], space))
            outcomes.append({"value": value, "error": "", "passed": value == example["expected"]})
        return ToolResult(data={"outcomes": outcomes})


async def test_programs_that_pass_the_examples_beat_the_many_that_do_not() -> None:
    ask = Running(
        {
            "voice 1": "```python\ndef double(x):\n    return x ** 2\n```",
            "voice 2": "```python\ndef double(x):\n    return x + 1\n```",
            "voice 3": "```python\ndef double(n):\n    return n + 1\n```",
            "voice 4": "```python\ndef double(x):\n    return x + x\n```",
        },
        tool_results={"code": {"python": ToolResult()}},
    )
    _, answer = await play(ensemble, context := set_up(voted(text=DOUBLE, samples=4, early=False), ask))
    report = context.report["ensemble"]
    assert report["kind"] == "code"
    assert report["examples_passed"] == 1
    assert [voter["agrees"] for voter in report["voices"]] == [
        True,
        False,
        False,
        True,
    ]  # 2 ** 2 is 4 as well
    assert "x ** 2" in answer.text
    assert report["dissent"][0]["voices"] == [2, 3]
    assert [use.name for use in ask.used] == [f"voice {number} / examples" for number in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    "result",
    [BackendFailed("away"), ToolResult(error="off"), ToolResult(data={"outcomes": [{"value": "4"}]})],
)
async def test_where_a_tool_cannot_run_them_programs_agree_by_their_structure_too(
    result: ToolResult | BackendFailed,
) -> None:
    ask = Scripted({"coordinator": "def double(x): return x * 2"}, tool_results={"code": {"python": result}})
    _, _, context = await perform(ensemble, voted(text=DOUBLE, early=False), ask)
    assert context.report["ensemble"]["agreement"] == 1
    assert "examples_passed" not in context.report["ensemble"]


async def test_without_a_tool_that_runs_them_programs_agree_by_their_structure() -> None:
    script = {"voice 1": "def double(x): return x * 2", "voice 2": "def double(n):\n  return n * 2"}
    _, _, context = await perform(
        ensemble, voted(text=DOUBLE, early=False), Scripted(script | {"voice 3": "def double(x): return 4"})
    )
    report = context.report["ensemble"]
    assert [voter["agrees"] for voter in report["voices"]] == [True, True, False]
    assert "examples_passed" not in report


async def test_a_program_that_passes_all_examples_ends_the_vote() -> None:
    program = "def double(x): return x + x"
    tool_results = {"code": {"python": ToolResult()}}
    ask = Running({"voice 1": program}, mute={"voice 2": 0, "voice 3": 0}, tool_results=tool_results)
    async with asyncio.timeout(5):
        text, _, _ = await perform(ensemble, voted(text=DOUBLE), ask)
    assert text == program
    assert ask.stopped == ["voice 2", "voice 3"]


async def test_weights_of_models_decide() -> None:
    models = ("small", "big", "tiny")
    ask = Scripted({"voice 1": "7", "voice 2": "8", "voice 3": "7"})
    context = set_up(voted(models=models, early=False), ask)
    context.trust = Trust(prior={"small": 0.4, "big": 0.95, "tiny": 0.4}.__getitem__)
    _, answer = await play(ensemble, context)
    assert answer.text.endswith("8")
    assert {(q.model, q.sampling.temperature) for q in ask.asked} == {(name, None) for name in models}


async def test_the_live_models_speak_and_one_model_alone_is_sampled() -> None:
    cards = [ModelCard(name="small", parameters=1), ModelCard(name="big", parameters=9)]
    ask = Scripted({"coordinator": "7"})
    await perform(ensemble, voted(early=False), ask, models=cards)
    assert sorted((q.name, q.model, q.sampling.temperature) for q in ask.asked) == [
        ("voice 1", "big", 0.7),
        ("voice 2", "small", None),
        ("voice 3", "big", 0.7),
    ]
    ask = Scripted({"coordinator": "7"})
    run = make_run(SUM, settings={"samples": 4, "early": False}, model="big", sampling=Sampling(seed=5))
    await perform(ensemble, run, ask, models=cards)
    assert [(q.model, q.sampling.seed) for q in ask.asked] == [("big", seed) for seed in (5, 6, 7, 8)]


async def test_a_voter_that_fails_is_left_out_with_a_note() -> None:
    ask = Scripted({"voice 1": UnknownModel.of("ghost", ["a"]), "voice 2": "7", "voice 3": "7"})
    text, _, context = await perform(ensemble, voted(models=["ghost", "a", "b"]), ask)
    assert text == "7"
    assert context.notes == ["went on without voice 1 (ghost): no model 'ghost'; known models: a"]
    assert context.report["ensemble"]["voices"][0]["error"] == "unknown_model"


@pytest.mark.parametrize("garbage", ["", "la la la " * 30, "I cannot say."])
async def test_a_model_that_answers_garbage_is_not_counted_and_a_note_says_so(garbage: str) -> None:
    ask = Scripted({"voice 1": garbage, "voice 2": "7", "voice 3": "7"})
    text, _, context = await perform(ensemble, voted(early=False), ask)
    assert text == "7"
    assert context.notes == ["not counted: the answer of voice 1 names no number"]
    assert context.report["ensemble"]["agreement"] == 1


async def test_where_all_answer_garbage_the_most_frequent_text_is_taken_with_a_note() -> None:
    ask = Scripted({"voice 1": "Hm, who knows?", "voice 2": "No idea at all.", "voice 3": "Hm, who knows?"})
    text, _, context = await perform(ensemble, voted(early=False), ask)
    assert text == "Hm, who knows?"
    assert "no voice's answer could be counted; what most of them say was taken" in context.notes


async def test_where_one_voter_is_left_its_answer_is_taken_with_a_note() -> None:
    ask = Scripted({"voice 1": NoNode("none"), "voice 2": BackendFailed("broken"), "voice 3": "7"})
    text, _, context = await perform(ensemble, voted(), ask)
    assert text == "7"
    assert "one voice alone could be counted: its answer was compared with no other" in context.notes


async def test_only_all_voices_failing_fails_the_run_with_the_first_error() -> None:
    ask = Paced(
        {"voice 2": NoNode("first"), "coordinator": BackendFailed("later")},
        turns=("voice 2", "voice 1", "voice 3"),
    )
    with pytest.raises(NoNode, match="first"):
        await perform(ensemble, voted(), ask)


async def test_where_all_voters_differ_the_first_answer_is_taken_with_a_note() -> None:
    ask = Scripted({"voice 1": "7", "voice 2": "8", "voice 3": "9"})
    _, _, context = await perform(ensemble, voted(), ask)
    assert context.report["ensemble"]["answer"] == "7"
    assert "no two of 3 voices agree" in context.notes


async def test_a_form_that_an_answer_does_not_meet_is_not_counted() -> None:
    guide = GuidedDecoding(json_schema={"type": "object"})
    ask = Scripted(
        {"voice 1": '{"city": "Par', "voice 2": '{"city": "Rome"}', "voice 3": '{"city":  "Rome"}'}
    )
    run = make_run(settings={"early": False}, guide=guide)
    parts, answer = await play(ensemble, context := set_up(run, ask))
    assert answer.text == '{"city": "Rome"}'
    assert len(parts) == 1  # nothing was told too soon, since it could not be taken back
    assert context.notes == ["not counted: the answer of voice 1 does not meet the form that is asked for"]
    assert all(question.guide == guide for question in ask.asked)


async def test_a_schema_that_cannot_guide_is_the_callers_error() -> None:
    run = make_run(guide=GuidedDecoding(json_schema={"type": "nonsense"}))
    with pytest.raises(InvalidGuide):
        await perform(ensemble, run, Scripted({"coordinator": InvalidGuide("no such type")}))


async def test_models_that_are_no_list_are_refused_with_what_a_list_looks_like() -> None:
    with pytest.raises(
        InvalidRequest, match=r'models: Input should be a list, such as \["a", "b"\]; settings'
    ):
        await perform(ensemble, voted(models="a"), Scripted({}))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"samples": 99}, "samples"),
        ({"models": ["m"] * 17}, "models"),
        ({"kind": "haiku"}, "kind"),
        ({"confidence": 0.2}, "confidence"),
        ({"voices": 3}, "voices"),
    ],
)
async def test_settings_out_of_bounds_are_refused_by_name(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await perform(ensemble, make_run(SUM, settings=settings), Scripted({}))
    assert caught.value.param == f"orchestra.settings.{field}" or field in str(caught.value.param)


async def test_a_synthesis_is_written_from_what_most_say_and_from_the_dissent() -> None:
    script = {"voice 1": "7", "voice 2": "7", "voice 3": "8", "synthesis": "Seven it is."}
    ask = Scripted(script)
    run = voted(synthesis=True, early=False, stream_at=1, kind="text", text=OPEN)
    parts, answer = await play(ensemble, context := set_up(run, ask))
    assert "".join(parts) == answer.text == "Seven it is."
    assert len(parts) == 3  # as they come
    asked = ask.question("synthesis").messages[-1].content
    assert "The answer that most agree on:\n7\n(2 of 3 answers say so, with 67% of the weight)" in asked
    assert "Another answer:\n8\n(1 of 3" in asked
    assert context.steps[-1].name == "synthesis"


async def test_a_number_is_never_rewritten_by_a_synthesis() -> None:
    ask = Scripted({"voice 1": "7", "voice 2": "7", "voice 3": "8", "synthesis": "Seven it is."})
    parts, answer = await play(ensemble, set_up(voted(synthesis=True, early=False, stream_at=1), ask))
    assert parts == [answer.text] == ["7"]


async def test_without_dissent_there_is_nothing_to_synthesise() -> None:
    ask = Scripted({"coordinator": "7"})
    text, _, context = await perform(ensemble, voted(synthesis=True), ask)
    assert text == "7"
    assert "synthesis" not in [step.name for step in context.steps]


async def test_a_synthesis_that_fails_leaves_what_most_say() -> None:
    ask = Scripted({"voice 1": "7", "voice 2": "7", "voice 3": "8", "synthesis": BackendFailed("broken")})
    run = voted(synthesis=True, early=False, kind="text", text=OPEN)
    text, _, context = await perform(ensemble, run, ask)
    assert text == "7"
    assert "no synthesis: broken" in context.notes


async def test_self_consistency_samples_one_model_that_may_be_told_to_think_aloud() -> None:
    cards = [ModelCard(name="small", parameters=1), ModelCard(name="big", parameters=9)]
    ask = Scripted({"coordinator": ["3 and 4 make 7. The answer is 7."]})
    run = make_run(SUM, settings={"think": True})
    text, _, context = await perform(self_consistency, run, ask, models=cards)
    assert text == "3 and 4 make 7. The answer is 7."
    assert {question.model for question in ask.asked} == {"big"}
    assert all(question.sampling.temperature == 0.7 for question in ask.asked)
    told = ask.asked[0].messages[0].content
    assert "Think step by step" in told
    assert "The answer is NUMBER" in told
    assert context.report["self-consistency"]["agreement"] == 1


async def test_a_question_that_says_itself_how_to_answer_is_left_as_it_is() -> None:
    for said, told in ((SUM, True), (f"{SUM} Answer with the number only.", False)):
        ask = Scripted({"coordinator": ["7"]})
        await perform(self_consistency, make_run(said), ask)
        assert (ask.asked[0].messages[0].role == "system") == told


async def test_self_consistency_begins_no_sample_that_is_not_needed() -> None:
    ask = Paced({"coordinator": "7"}, turns=tuple(f"voice {number}" for number in range(1, 9)))
    run = make_run(SUM, settings={"samples": 8, "max_parallel": 1})
    _, _, context = await perform(self_consistency, run, ask)
    report = context.report["self-consistency"]
    assert len(ask.asked) == 3
    assert (report["calls_cut"], report["stopped_early"], ask.stopped) == (5, True, [])


async def test_within_a_budget_samples_are_taken_until_it_is_spent() -> None:
    answers = ["1", "2", "3", "4", "5", "6", "7", "8"]
    ask = Scripted({f"voice {number}": said for number, said in enumerate(answers, 1)})
    run = make_run(SUM, settings={"samples": 8}, budget=Budget(calls=5))
    text, _, context = await perform(self_consistency, run, ask)
    assert text.startswith("1")
    assert len(ask.asked) == 5
    assert context.report["self-consistency"]["agreement"] == 0.2


async def test_within_few_tokens_samples_follow_one_another() -> None:
    ask = Scripted({f"voice {number}": str(number) for number in range(1, 9)})
    run = make_run(SUM, settings={"samples": 8}, budget=Budget(tokens=700), sampling=Sampling(max_tokens=200))
    _, _, context = await perform(self_consistency, run, ask)
    assert ask.most_open <= 2
    assert len(ask.asked) == 8
    assert context.budget.tokens <= 700


async def test_no_sample_is_lost_because_others_hold_the_budget_for_a_while() -> None:
    ask = Scripted({f"voice {number}": str(number) for number in range(1, 9)})
    run = make_run(SUM, settings={"samples": 8}, budget=Budget(tokens=500), sampling=Sampling(max_tokens=64))
    _, _, context = await perform(self_consistency, run, ask)
    assert len(ask.asked) == 8
    assert not context.budget.left_out


async def test_what_no_rule_reads_a_model_reads_where_it_could_turn_the_vote() -> None:
    leaning = "Either 7 or 8. I lean to the first."
    script = {"voice 1": "7", "voice 2": "8", "voice 3": leaning, "reading 3": '{"answer": "7"}'}
    _, answer = await play(
        ensemble, context := set_up(voted(early=False, stream_at=1), ask := Scripted(script))
    )
    assert answer.text == "7"
    report = context.report["ensemble"]
    assert [voter["group"] for voter in report["voices"]] == [0, 1, 0]
    asked = ask.question("reading 3")
    assert (asked.sampling.temperature, leaning in asked.messages[-1].content) == (0, True)
    clear = Scripted(script | {"voice 2": "7", "voice 4": "7"})
    _, _ = await play(ensemble, set_up(voted(early=False, stream_at=1, samples=4), clear))
    assert "reading 3" not in [question.name for question in clear.asked], "it could not turn the vote"


async def test_an_answer_that_no_model_can_read_either_has_no_vote_and_a_note_says_so() -> None:
    script: dict[str, str | BackendFailed] = {"voice 1": "7", "voice 2": "8", "voice 3": "Either 7 or 8."}
    script["reading 3"] = BackendFailed("off")
    _, answer = await play(ensemble, context := set_up(voted(early=False, stream_at=1), Scripted(script)))
    assert answer.text == "7"
    assert "not counted: the answer of voice 3 names no number" in context.notes


async def test_marks_of_the_end_that_an_upstream_leaves_are_no_part_of_an_answer() -> None:
    script = {"voice 1": "7" + "</s>" * 40, "voice 2": "8", "voice 3": "7<|im_end|>\n<|im_end|>"}
    _, answer = await play(ensemble, context := set_up(voted(early=False, stream_at=1), Scripted(script)))
    assert answer.text == "7"
    assert context.report["ensemble"]["agreement"] == 0.667


async def test_an_answer_that_repeats_itself_counts_where_it_is_clear() -> None:
    script = {"voice 1": "The answer is 7.\n" * 60, "voice 2": "8", "voice 3": "The answer is 7."}
    _, answer = await play(ensemble, context := set_up(voted(early=False, stream_at=1), Scripted(script)))
    assert context.report["ensemble"]["agreement"] == 0.667
    assert "7" in answer.text


@pytest.mark.parametrize(("share", "taken"), [(0.6, ""), (0.9, "; the answer of voice 1 (big), whose vote")])
async def test_where_none_agree_a_note_names_the_heaviest_vote_only_where_there_is_one(
    share: float, taken: str
) -> None:
    ask = Scripted({"voice 1": "7", "voice 2": "8", "voice 3": "9"})
    context = set_up(voted(models=["big", "small", "tiny"], early=False), ask)
    context.trust = Trust(prior={"big": share, "small": 0.6, "tiny": 0.6}.__getitem__)
    await play(ensemble, context)
    (note,) = [note for note in context.notes if note.startswith("no two of 3 voices agree")]
    assert note.removeprefix("no two of 3 voices agree").startswith(taken)
    assert bool(taken) == ("weighs most" in note)
