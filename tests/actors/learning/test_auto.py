"""What `auto` chooses, says and sets, by its priors and by an advisor's word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from orchestration.bandit.bandit import ArmChoice, choose
from orchestration.errors import BackendFailed, InvalidRequest, OrchestraError
from orchestration.messages import Budget, ChatMessage, GuidedDecoding, ModelCard, Run, Sampling, ToolResult
from orchestration.patterns import BUILT_IN, RunContext
from orchestration.patterns.auto import auto
from orchestration.query_analysis.analysis import Analysis, analyse
from orchestration.query_analysis.chores import is_chore
from orchestration.query_analysis.profiles import PROFILES, Arm, arms
from orchestration.trust.records import KindRecord
from tests.orchestration.patterns.scripted import AGENTS, Scripted, make_context, make_run, perform

HARD = "Compare nuclear and wind power for an island: cost and waste. Weigh the risks and recommend one."


class Advice:
    """Takes the arm of a pattern, and remembers what it was asked."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.offered: list[str] = []
        self.failures: list[OrchestraError] = []

    async def choose(self, run: Run, analysis: Analysis, arms: Sequence[Arm]) -> ArmChoice:
        self.offered = [arm.name for arm in arms]
        return ArmChoice(next(arm for arm in arms if arm.pattern == self.pattern), "as told")

    def failed(self, error: OrchestraError) -> None:
        self.failures.append(error)


async def told(text: str = HARD, **fields: Any) -> tuple[dict[str, Any], Scripted, RunContext]:
    """What `auto` reports of a run, and who was asked what."""
    ask = Scripted({})
    _, _, context = await perform(auto, make_run(text, **fields), ask)
    return context.report["auto"], ask, context


@pytest.mark.parametrize(
    ("text", "kind", "pattern"),
    [
        ("What is the capital of France?", "factual", "single"),
        ("Hello there", "conversation", "single"),
        ("Write a python function that sorts a list", "code", "single"),
        ("Schreibe ein Gedicht über den Mond", "creative", "single"),
        ("What is 12 * 14?", "reasoning", "single"),
        (HARD, "reasoning", "single"),
    ],
)
async def test_the_kind_of_a_question_decides_who_answers(text: str, kind: str, pattern: str) -> None:
    said, ask, _ = await told(text)
    assert (said["kind"], said["pattern"]) == (kind, pattern)
    assert ask.said[0].startswith(f"auto chose {pattern}")
    assert said["reason"] in ask.said[0]


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        ("shorter, please", "code"),
        ("thanks a lot!", "code"),
        ("Who wrote Don Quixote, and when?", "factual"),
        ("Now write a limerick about it.", "creative"),
    ],
)
async def test_a_question_that_leans_on_the_one_before_is_of_its_kind_and_as_hard_as_itself(
    last: str, kind: str
) -> None:
    first = "Design and implement a distributed lock in Go with tests, and analyse how it fails."
    turns = (
        ChatMessage(role="user", content=first),
        ChatMessage(role="assistant", content="func Lock() {}"),
        ChatMessage(role="user", content=last),
    )
    assert (await told(first))[0]["difficulty"] == "hard"
    said, _, _ = await told(messages=turns)
    assert (said["kind"], said["difficulty"], said["pattern"]) == (kind, "easy", "single")


async def test_parameters_go_by_the_kind_of_question() -> None:
    _, code, _ = await told("Write a python function that sorts a list")
    _, poem, _ = await told("Write a poem about the moon")
    assert code.question("answer").sampling.temperature == 0
    assert poem.question("answer").sampling.temperature == 0.9
    assert poem.question("answer").sampling.presence_penalty == 0.3
    _, chat, _ = await told("hi!")
    assert (chat.question("answer").sampling.max_tokens or 0) <= 192


async def test_the_callers_own_parameters_and_model_go_over_the_profile() -> None:
    sampling = Sampling(temperature=0.33, max_tokens=7, seed=5)
    settings = {"models": {"creative": ["poet"]}}
    _, ask, _ = await told("Write a poem about the moon", sampling=sampling, model="mine", settings=settings)
    question = ask.question("answer")
    assert (question.sampling.temperature, question.sampling.max_tokens, question.sampling.seed) == (
        0.33,
        7,
        5,
    )
    assert question.sampling.presence_penalty == 0.3
    assert question.model == "mine"


async def test_parameters_of_the_settings_go_over_the_profile_and_under_the_callers() -> None:
    settings = {"parameters": {"creative": {"temperature": 0.5, "top_p": 0.8}}}
    _, ask, _ = await told("Write a poem about the moon", sampling=Sampling(top_p=0.6), settings=settings)
    sampling = ask.question("answer").sampling
    assert (sampling.temperature, sampling.top_p, sampling.presence_penalty) == (0.5, 0.6, 0.3)
    with pytest.raises(InvalidRequest, match="warmth"):
        await told(settings={"parameters": {"creative": {"warmth": 1}}})


async def test_the_first_preferred_model_that_lives_answers_its_kind() -> None:
    ask = Scripted({})
    settings = {"models": {"creative": ["gone", "poet"], "code": ["coder"]}}
    cards = [ModelCard(name="poet"), ModelCard(name="coder")]
    await perform(auto, make_run("Write a poem about the moon", settings=settings), ask, models=cards)
    assert ask.question("answer").model == "poet"


async def test_a_question_whose_answer_is_to_be_json_is_one_for_several_models_and_a_title_is_not() -> None:
    sums = "Ann has 12 eggs and buys 30. How many eggs does she have? Return only a JSON object."
    names, said, ask = await offered_models(sums, want="ensemble")
    assert (len(names), said["pattern"]) == (8, "ensemble")
    assert len({question.model for question in ask.asked}) > 2
    names, said, _ = await offered_models(OPEN_WEBUI)
    assert (len(names), said["profile"], said["model"]) == (8, "precise", "m11")


COMPARE = "Compare wind and solar power for an island: cost and waste."


async def offered_models(
    text: str = COMPARE, want: str = "single", **fields: Any
) -> tuple[set[str], dict[str, Any], Scripted]:
    """The models that an advisor may choose to answer alone, the report, and who was asked."""
    advice, ask = Advice(want), Scripted({})
    cards = [ModelCard(name=f"m{number}", parameters=10**number) for number in range(1, 12)]
    run = make_run(text, **fields)
    context = make_context(run, ask, agents={}, clock=lambda: 0.0, models=cards, advisor=advice)
    async for _ in auto(run, context):
        pass
    names = {name.split("/", 2)[2] for name in advice.offered if name.count("/") == 2}
    return names, context.report["auto"], ask


async def test_the_most_trusted_models_may_each_answer_alone_and_the_one_chosen_is_asked_and_said() -> None:
    names, said, ask = await offered_models()
    assert names == {f"m{number}" for number in range(4, 12)}
    assert ask.question("answer").model == said["model"] == "m11"
    assert ask.said[0].startswith(f"auto chose single, m11, {said['profile']}: ")
    names, said, _ = await offered_models(guide=GuidedDecoding(regex="yes|no"))
    assert (len(names), said["model"]) == (8, "m11")


@pytest.mark.parametrize(
    "fields",
    [{"model": "m2"}, {"settings": {"models": {"reasoning": ["gone", "m2"]}}}],
    ids=["caller", "set"],
)
async def test_where_a_model_is_named_no_other_is_offered(fields: dict[str, Any]) -> None:
    names, said, ask = await offered_models(**fields)
    assert names == set()
    assert ask.question("answer").model == said["model"] == "m2"


@pytest.mark.parametrize(
    "fields",
    [
        {"guide": GuidedDecoding(regex="yes|no")},
        {"budget": Budget(tokens=500)},
        {"budget": Budget(calls=1)},
        {"settings": {"patterns": []}},
    ],
    ids=["a fixed form", "few tokens", "one call", "not allowed"],
)
async def test_one_model_answers_where_a_team_has_little_to_add(fields: dict[str, Any]) -> None:
    said, ask, _ = await told(**fields)
    assert said["pattern"] == "single"
    assert len(ask.asked) == 1


async def test_an_advisor_chooses_among_the_ways_that_suit_the_question() -> None:
    advice = Advice("ensemble")
    ask = Scripted({})
    context = make_context(make_run(HARD), ask, agents={}, clock=lambda: 0.0, advisor=advice)
    async for _ in auto(context.run, context):
        pass
    assert context.report["auto"]["pattern"] == "ensemble"
    assert context.report["auto"]["reason"] == "as told"
    assert {"strict/single", "strict/maestro", "strict/ensemble"} <= set(advice.offered)


async def test_an_advisor_hears_that_what_it_chose_came_to_nothing() -> None:
    advice, error = Advice("single"), BackendFailed("broken")
    context = make_context(
        make_run(HARD), Scripted({"answer": error}), agents={}, clock=lambda: 0.0, advisor=advice
    )
    with pytest.raises(BackendFailed):
        async for _ in auto(context.run, context):
            pass
    assert advice.failures == [error]


async def test_what_was_chosen_is_told_to_programs_that_watch() -> None:
    said, ask, _ = await told("What is the capital of France?")
    kind, data = ask.happened[0]
    assert kind == "choice"
    assert data.pop("question") == said.pop("kind") == "factual"
    assert data == said


async def test_a_question_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        await told("   ")


async def test_a_pattern_that_is_named_is_offered_though_nothing_is_known_of_it() -> None:
    advice, run = Advice("research"), make_run("Where is Machu Picchu?", settings={"patterns": ["research"]})
    context = make_context(run, Scripted({}), agents={}, clock=lambda: 0.0, advisor=advice)
    async for _ in auto(run, context):
        pass
    assert context.report["auto"]["pattern"] == "research"
    _, ask, _ = await told("hello", settings={"patterns": ["research"]})
    assert len(ask.asked) == 1


@pytest.mark.parametrize("name", ["quartet", "auto"])
async def test_a_pattern_that_it_cannot_choose_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequest, match=name) as caught:
        await told(settings={"patterns": [name]})
    assert caught.value.param == "orchestra.settings.patterns"


async def test_settings_that_name_no_kind_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"orchestra\.settings\.models"):
        await told(settings={"models": {"poetry": ["m"]}})


def test_every_kind_has_a_profile_that_is_best_known() -> None:
    for profiles in PROFILES.values():
        assert len({profile.name for profile in profiles}) == len(profiles) >= 2


OPEN_WEBUI = (
    "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.\n"
    "### Guidelines:\n- The title should clearly represent the main theme.\n### Output:\n"
    'JSON format: { "title": "your concise title here" }\n### Chat History:\n<chat_history>\n'
    f"USER: {HARD}\nASSISTANT: It depends on the wind.\n</chat_history>"
)
CHORES = (
    OPEN_WEBUI,
    f"### Task:\nGenerate 1-3 broad tags categorizing the main themes of the chat history.\n{HARD}",
    f"### Task:\nSuggest 3-5 relevant follow-up questions that the user might ask.\n{HARD}",
    f"### Task:\nAnalyze the chat history to determine the necessity of generating search queries.\n{HARD}",
    f"Please generate a concise, 5-word-or-less title for the conversation, in its language.\n\n{HARD}",
    f"{HARD}\n\nSummarize the discussion above in 200 words or less.",
    f"{HARD} Return only a JSON object with the keys cost and waste.",
    "Analyze this conversation and provide:\n1. The detected language of the conversation\n"
    f"2. A concise title in the detected language (5 words or less)\n\n{HARD}",
    f"Reflect the speaker's likely facial expression through a fitting emoji.\n\nMessage: {HARD}",
    f"Rephrase the follow up question to be a standalone question: {HARD}",
    f"Create a 3-5 word phrase as a header for the following query: {HARD}",
    f"Fais un résumé de ce texte : {HARD}",
    f"Fasse diesen Text zusammen: {HARD}",
    f"Erstelle einen kurzen Titel für diese Unterhaltung: {HARD}",
)


async def test_a_title_is_short_where_the_caller_does_not_say_how_long_it_may_be() -> None:
    _, title, _ = await told(OPEN_WEBUI)
    assert (title.question("answer").sampling.max_tokens or 0) <= 192
    _, own, _ = await told(OPEN_WEBUI, sampling=Sampling(max_tokens=1000))
    assert own.question("answer").sampling.max_tokens == 1000
    longer = ("Write a 500-word essay on wind power with a title.", "Write a poem on wind. Give it a title.")
    for text in (f"{HARD}\n\nSummarize the discussion above.", f"{HARD} Return only a JSON object.", *longer):
        _, long, _ = await told(text)
        assert (long.question("answer").sampling.max_tokens or 0) > 192


@pytest.mark.parametrize("text", CHORES, ids=range(len(CHORES)))
async def test_a_title_tags_a_summary_or_json_are_the_work_of_one_model(text: str) -> None:
    advice = Advice("single")
    context = make_context(make_run(text), Scripted({}), agents=AGENTS, clock=lambda: 0.0, advisor=advice)
    async for _ in auto(context.run, context):
        pass
    assert advice.offered == ["precise/single"]


@pytest.mark.parametrize(
    "text",
    [
        HARD,
        "Which title did Chaplin's first film have?",
        "Write a JSON parser class",
        "Find the title of the book in which Ishmael narrates",
        "How do I write a good summary of my career?",
        "Wie schreibt man eine Zusammenfassung?",
        "Should I resume work after the flu?",
        "Find a way to label the boxes when all labels are wrong.",
    ],
)
def test_what_is_no_chore_is_left_to_whom_it_suits(text: str) -> None:
    assert not is_chore(text)


@pytest.mark.parametrize(
    "text", ["What is the capital of France?", "Who wrote Faust?", "What is 12 * 14?", "Where is Oslo?"]
)
async def test_an_easy_question_with_one_right_answer_is_never_sampled(text: str) -> None:
    (arm,) = arms(analyse(text), set(BUILT_IN))
    assert (arm.pattern, arm.profile.sampling.temperature) == ("single", 0)
    for number in range(40):
        run = make_run(text, id=f"a.{number}")
        assert choose([arm], KindRecord(), run.id).arm is arm
    _, ask, _ = await told(text)
    assert ask.question("answer").sampling.temperature == 0


@pytest.mark.parametrize(("similarity", "pattern"), [(0.73, "research"), (0.3, "single")])
async def test_a_passage_that_clearly_fits_makes_it_research(similarity: float, pattern: str) -> None:
    found = {
        "document": "/docs/pool.md",
        "title": "Pool",
        "heading": "",
        "passage": "The pool opens at seven.",
        "similarity": similarity,
    }
    ask = Scripted(
        {"answer": "The pool opens at seven."},
        tool_results={"research": {"knowledge": ToolResult(data=[found])}},
    )
    _, _, context = await perform(auto, make_run("When does the pool open?"), ask)
    assert context.report["auto"]["pattern"] == pattern
    assert ("0.73" in context.report["auto"]["reason"]) == (pattern == "research")
    summary = make_run("Summarize the opening hours of the pool.")
    _, _, context = await perform(auto, summary, Scripted({}, tool_results=ask.tool_results))
    assert context.report["auto"]["pattern"] == pattern
    ask = Scripted({}, tool_results=ask.tool_results)
    for other in (OPEN_WEBUI, "hello", "Summarize this conversation.", "Summarize: The pool opens."):
        _, _, context = await perform(auto, make_run(other), ask)
        assert (context.report["auto"]["pattern"], ask.used) == ("single", [])
