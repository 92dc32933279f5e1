"""The replay backend: recorded answers, found by their question, paced and cut as a model's are."""

from __future__ import annotations

import gzip
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from actors.backends.base import Output
from actors.backends.recorded import BadRecords, QuestionIndex, RecordedQuestion, read_records
from actors.backends.replay import ReplayBackend, ReplaySettings
from actors.node.backend_factory import ServedName, replay_backend
from orchestration.errors import InvalidGuide, InvalidRequest, NotRecorded, UnknownModel
from orchestration.messages import (
    ChatGeneration,
    ChatMessage,
    Continuation,
    Finish,
    Generation,
    GuidedDecoding,
    Sampling,
    TextDelta,
)

SUM = "What is 2 + 2?\n\nThink step  by step, and end with the number."
LONG = "A train leaves at noon and travels 60 miles per hour for two and a half hours. How far does it get?"
ROWS: list[dict[str, Any]] = [
    {
        "id": "sum",
        "messages": [{"role": "user", "content": SUM}],
        "gold": "4",
        "answers": {"a": ["Two and two are 4.", "It is 5."], "b": "4" * 400},
    },
    {
        "id": "train",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": LONG}],
        "gold": 150,
        "answers": {"a": "150 miles"},
        "usage": {"a": {"prompt_tokens": 31, "completion_tokens": 3}},
    },
    {
        "id": "again",
        "messages": [
            {"role": "user", "content": LONG},
            {"role": "assistant", "content": "150"},
            {"role": "user", "content": "And in half of the time?"},
        ],
        "answers": {"a": "75"},
    },
]


def written(folder: Path, *rows: dict[str, Any] | str) -> Path:
    file = folder / "set.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return file


@pytest.fixture
def backend(tmp_path: Path) -> ReplayBackend:
    return ReplayBackend(ReplaySettings(records=written(tmp_path, *ROWS), speed=0, first_token_s=0))


def asked(*texts: str, model: str = "a", guide: GuidedDecoding | None = None, **sampling: Any) -> Generation:
    messages = tuple(ChatMessage(role="user", content=text) for text in texts)
    return ChatGeneration(
        id="asker.1", model=model, messages=messages, guide=guide, sampling=Sampling.model_validate(sampling)
    )


async def answered(backend: ReplayBackend, generation: Generation) -> tuple[str, Finish, list[Output]]:
    outputs = [output async for output in backend.generate(generation)]
    finish = outputs[-1]
    assert isinstance(finish, Finish)
    return "".join(o.text for o in outputs if isinstance(o, TextDelta)), finish, outputs


async def test_each_sample_is_given_in_turn_whatever_the_white_space(backend: ReplayBackend) -> None:
    said = [(await answered(backend, asked(SUM.replace("  ", "\n"))))[0] for _ in range(3)]
    assert said == ["Two and two are 4.", "It is 5.", "Two and two are 4."]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ((f"Answer this: “{LONG}” Be short.",), "150 miles"),
        (("You are a critic.", f"Question:{LONG}", "What do you think of it?"), "150 miles"),
        ((f"{LONG} {LONG}", "And in half of the time?"), "75"),  # the turns before it tell it apart
        ((f"Some say 4. {SUM}",), "Two and two are 4."),
    ],
)
async def test_a_question_is_found_where_a_pattern_has_moved_it(
    backend: ReplayBackend, texts: tuple[str, ...], said: str
) -> None:
    assert (await answered(backend, asked(*texts)))[0] == said


async def test_max_tokens_cuts_the_answer_and_says_length(backend: ReplayBackend) -> None:
    text, finish, outputs = await answered(backend, asked(SUM, model="b", max_tokens=40))
    assert (text, finish.reason, finish.usage.completion_tokens) == ("4" * 160, "length", 40)
    assert [each.tokens for each in outputs if isinstance(each, TextDelta)] == [32, 8]
    text, finish, _ = await answered(backend, asked(SUM, model="b"))
    assert (len(text), finish.reason, finish.usage.completion_tokens) == (400, "stop", 100)
    text, finish, _ = await answered(backend, asked(SUM, stop=["are"]))
    assert (text, finish.reason) == ("Two and two ", "stop")


async def test_recorded_usage_is_told(backend: ReplayBackend) -> None:
    _, finish, _ = await answered(backend, asked(LONG))
    assert (finish.usage.prompt_tokens, finish.usage.completion_tokens) == (31, 3)


async def test_it_goes_on_with_the_sample_that_another_node_began(backend: ReplayBackend) -> None:
    begun = asked(SUM).model_copy(update={"continuation": Continuation(text="It is", tokens=1)})
    assert (await answered(backend, begun))[0] == " 5."


async def test_it_counts_what_it_wrote_of_an_answer_that_is_stopped(backend: ReplayBackend) -> None:
    async with aclosing(backend.generate(asked(SUM, model="b"))) as outputs:
        await anext(outputs)
        assert backend.running == {"sum": 1}
    assert backend.written == {("sum", "b"): 32}
    assert not backend.running


async def test_what_is_not_recorded_is_refused_with_the_question(backend: ReplayBackend) -> None:
    with pytest.raises(NotRecorded, match="of 'a' to this question is recorded: Why is the sky blue"):
        await answered(backend, asked("Why is the sky blue, and why is it red in the evening?"))
    with pytest.raises(NotRecorded, match="no answer of 'b' to question 'train' is recorded"):
        await answered(backend, asked(LONG, model="b"))
    with pytest.raises(InvalidGuide):
        await answered(backend, asked(SUM, guide=GuidedDecoding(choice=("yes", "no"))))
    with pytest.raises(UnknownModel, match="known models: a, b"):
        await answered(backend, asked(SUM, model="c"))


def test_many_questions_with_the_same_frame_are_told_apart_by_their_own_words() -> None:
    frame = "Please answer the question below by reasoning first.\n{}\nEnd with: The answer is …"
    rows = [
        {"id": n, "messages": [{"role": "user", "content": frame.format(f"How much is {n} plus {n + 1}?")}],
         "answers": {"a": str(n)}}
        for n in range(500)
    ]  # fmt: skip
    questions = QuestionIndex([RecordedQuestion.model_validate(row) for row in rows])
    moved = f"Review this.\n\n{frame.format('How much is 77 plus 78?')}\n\nAnswer: 155"
    found = questions.find([("system", "You review."), ("user", moved)])
    assert found is not None
    assert found.id == 77


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("{",), r"line 1: Invalid JSON"),
        ((ROWS[0], {"messages": []}), r"line 2: messages: "),
        ((ROWS[0], '{"id": 3,'), r"line 2: Invalid JSON: EOF [a-z ]+ at character 9$"),
        (({"messages": [{"role": "user", "content": "x"}]},), r"line 1: answers: Field required"),
        (({**ROWS[0], "answers": {"a": []}},), r"line 1: answers\.a: .*at least 1 item"),
        (({**ROWS[0], "answers": {"a": [1]}},), r"line 1: answers\.a\.0: .*string"),
        (({**ROWS[0], "form": "letter"},), r"line 1: form: "),
        ((ROWS[0], "", {**ROWS[1], "id": "sum"}), r"line 3: another record has the id 'sum'"),
        ((ROWS[0], {**ROWS[0], "id": "other"}), r"line 2: messages: same question as line 1"),
        (({**ROWS[0], "messages": [{"role": "user", "content": " "}]},), r"line 1: messages: .*is empty"),
        (("",), "holds no record"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path, lines: tuple[Any, ...], said: str) -> None:
    with pytest.raises(BadRecords, match=said):
        read_records(written(tmp_path, *lines))


def test_a_file_may_be_packed_and_a_cut_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl.gz"
    packed = gzip.compress("\n".join(json.dumps(row) for row in ROWS).encode())
    file.write_bytes(packed)
    assert [record.id for record in read_records(file)] == ["sum", "train", "again"]
    file.write_bytes(packed[:-20])
    with pytest.raises(BadRecords, match="cannot read"):
        read_records(file)
    with pytest.raises(BadRecords, match="No such file"):
        read_records(tmp_path / "nothing.jsonl")


def test_it_is_made_from_the_words_of_the_command(tmp_path: Path) -> None:
    made = replay_backend([ServedName.parse("b")], {"records": str(written(tmp_path, *ROWS)), "speed": 100})
    assert [card.name for card in made.models] == ["b"]
    with pytest.raises(InvalidRequest, match="needs --records"):
        replay_backend([], {})
    with pytest.raises(UnknownModel, match="no model 'c'"):
        replay_backend([ServedName.parse("c")], {"records": str(written(tmp_path, *ROWS))})
