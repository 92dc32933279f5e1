"""Answers of the code and reasoning agents: tried and checked before they are passed on."""

from __future__ import annotations

import pytest

from orchestration.errors import NodeLost, OrchestraError
from orchestration.messages import Budget, GuidedDecoding, ToolResult
from orchestration.patterns.arithmetic_check import correct_all_sums
from orchestration.patterns.code_check import examples_for, problem_of, program_in
from orchestration.patterns.specialists import code, reasoning
from tests.orchestration.patterns.scripted import Reply, Scripted, make_run, perform

QUESTION = "Write a function that doubles.\n>>> double(2)\n4\nassert double(0) == 0"
RIGHT = "Here:\n```python\ndef double(x):\n    return 2 * x\n```"
WRONG = "Here:\n```python\ndef double(x):\n    return x ** 2\n```"
BROKEN = "Here:\n```python\ndef double(x)\n    return 2 * x\n```"
CALLS = [{"call": "double(2)", "expected": "4"}, {"call": "double(0)", "expected": "0"}]


def passing(*passed: bool) -> ToolResult:
    return ToolResult(data={"outcomes": [{"value": "7", "error": "", "passed": each} for each in passed]})


class Sandboxed(Scripted):
    """The examples of program number n come out as `results[n]` says."""

    def __init__(self, results: list[ToolResult | OrchestraError], **script: Reply) -> None:
        named = {name.replace("_", ": "): line for name, line in script.items()}
        super().__init__(named, tool_results={"code": {"python": ToolResult()}})
        self.results = results

    async def use(self, use):  # type: ignore[no-untyped-def]
        await super().use(use)
        result = self.results[len(self.used) - 1]
        if isinstance(result, OrchestraError):
            raise result
        return result


async def test_a_program_that_passes_the_requests_examples_is_passed_on_as_it_is() -> None:
    ask = Sandboxed([passing(True, True)], answer=RIGHT)
    text, _, context = await perform(code, make_run(QUESTION), ask)
    assert text == RIGHT
    assert ask.used[0].arguments == {"code": "def double(x):\n    return 2 * x", "examples": CALLS}
    (report,) = context.report["code"]
    assert (report["examples"], report["passed"], report["repaired"]) == (2, 2, False)


async def test_what_failed_goes_back_once_and_the_better_program_is_passed_on() -> None:
    ask = Sandboxed([passing(False, True), passing(True, True)], answer=WRONG, answer_repair=RIGHT)
    text, _, context = await perform(code, make_run(QUESTION), ask)
    assert text == RIGHT
    told = ask.question("answer: repair").messages
    assert told[-2].content == WRONG
    assert "double(2) should give 4, and gives 7" in told[-1].content
    assert [step.name for step in context.steps] == [
        "answer",
        "answer: python",
        "answer: repair",
        "answer: python again",
    ]
    assert context.report["code"][0]["repaired"] is True


async def test_a_repair_that_is_no_better_is_dropped_and_the_reader_is_told_what_fails() -> None:
    ask = Sandboxed([passing(False, True), passing(False, False)], answer=WRONG, answer_repair=RIGHT)
    text, _, context = await perform(code, make_run(QUESTION), ask)
    assert text.startswith(WRONG)
    assert text.endswith("(This program fails 1 of 2 examples: double(2) should give 4, and gives 7)")
    assert context.report["code"][0]["failures"] == ["double(2) should give 4, and gives 7"]


async def test_a_program_that_does_not_parse_is_repaired_without_any_sandbox() -> None:
    ask = Scripted({"answer": BROKEN, "answer: repair": RIGHT})
    text, _, context = await perform(code, make_run("Write a function that doubles."), ask)
    assert text == RIGHT
    assert "SyntaxError" in ask.question("answer: repair").messages[-1].content
    assert context.report["code"][0]["parses"] is True
    assert not ask.used


async def test_a_repair_that_fails_or_cannot_be_afforded_leaves_the_first_program() -> None:
    for ask, budget in (
        (Scripted({"answer": BROKEN, "answer: repair": NodeLost("gone")}), Budget()),
        (Scripted({"answer": BROKEN}), Budget(calls=1)),
    ):
        text, _, context = await perform(code, make_run("Double it.", budget=budget), ask)
        assert text.startswith(BROKEN)
        assert "(This program does not parse: SyntaxError" in text
        assert context.report["code"][0]["repaired"] is False


async def test_a_sandbox_that_refuses_or_is_lost_is_told_to_who_watches_and_costs_no_repair() -> None:
    for trouble in (ToolResult(error="no Landlock"), NodeLost("gone"), ToolResult(data={"outcomes": 3})):
        ask = Sandboxed([trouble], answer=WRONG)
        text, _, context = await perform(code, make_run(QUESTION), ask)
        assert text == WRONG
        assert len(ask.asked) == 1
        assert context.report["code"][0]["examples"] == 0


async def test_sums_of_the_reasoning_agent_are_corrected_and_said() -> None:
    ask = Scripted({"answer": "12 × 3 = 35, so it is plenty."})
    text, answer, context = await perform(reasoning, make_run("How much?"), ask)
    assert text == "12 × 3 = 36, so it is plenty.\n\n(Arithmetic corrected: 12 × 3 = 36, not 35.)"
    assert answer.text == text
    assert context.report["arithmetic"] == [{"step": "answer", "sum": "12 × 3", "wrong": "35", "right": "36"}]
    assert "arithmetic" in [kind for kind, _ in ask.happened]


async def test_a_guided_answer_is_never_touched() -> None:
    ask = Scripted({"answer": '{"sum": "2 + 2 = 5"}'})
    guide = GuidedDecoding(json_schema={"type": "object"})
    text, _, context = await perform(reasoning, make_run("How much?", guide=guide), ask)
    assert text == '{"sum": "2 + 2 = 5"}'
    assert not context.report.sections


@pytest.mark.parametrize(
    ("request_", "calls"),
    [
        ("assert is_even(4)\nassert not is_even(3)", {"is_even(4)": "True", "is_even(3)": "False"}),
        ("Input: [1, 2]\nOutput: 3", {"f([1, 2])": "3"}),
        ("Input: 1, 2 -> Output: 3", {"f(1, 2)": "3"}),
        ("input `'ab'`\n expected output: `'ba'`", {"f('ab')": "'ba'"}),
        ("Input: a file\nOutput: a report", {}),
        (">>> f(2)\n4", {"f(2)": "4"}),
    ],
)
def test_examples_are_found_in_the_forms_that_people_use(request_: str, calls: dict[str, str]) -> None:
    program = "def helper():\n    pass\ndef f(*given):\n    return given"
    assert {each.call: each.expected for each in examples_for(request_, program)} == calls


def test_only_python_is_taken_for_a_program_and_is_parsed_without_being_run() -> None:
    assert program_in("```js\nlet x = 1\n```") is None
    assert program_in("```\nplain text\n```") is None
    assert (
        program_in("```py\nx = 1\n```\n```\ndef f():\n    return 12345\n```") == "def f():\n    return 12345"
    )
    assert program_in("```python\nx = 1") == "x = 1"
    assert problem_of("raise SystemExit") == ""
    assert problem_of("x = (").startswith("SyntaxError: ")
    assert problem_of("(" * 5_000 + ")" * 5_000)
    assert problem_of("x = '\0'")


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("12 + 30 = 32. So the answer is 32.", "12 + 30 = 42. So the answer is 42."),
        ("12 + 30 = 32, 32 × 2 = 64. The answer is 64.", "12 + 30 = 42, 42 × 2 = 84. The answer is 84."),
        ("**12 + 30 = 32**\n\n**Answer: 32**", "**12 + 30 = 42**\n\n**Answer: 42**"),
        ("- 12 + 30 = 32\n- So 32", "- 12 + 30 = 42\n- So 42"),
        ("$12 + 30 = 32$ and (12 + 30 = 32)", "$12 + 30 = 42$ and (12 + 30 = 42)"),
        ("\\(12 \\times 3 = 35\\), \\boxed{35}", "\\(12 \\times 3 = 36\\), \\boxed{36}"),
        ("1. 12 + 30 = 2\n2. Step 2 at 2 o'clock: 2", "1. 12 + 30 = 42\n2. Step 2 at 2 o'clock: 42"),
    ],
)
def test_what_follows_from_a_corrected_sum_is_written_again(said: str, text: str) -> None:
    assert correct_all_sums(said, "What is 12 + 30?")[::2] == (text, True)


def test_a_conclusion_that_does_not_follow_from_the_corrected_sum_is_told() -> None:
    assert not correct_all_sums("12 + 30 = 32, so the answer is indeed 64.", "What is 12 + 30?")[2]


@pytest.mark.parametrize("again", ["12 + 30 = 42. The answer is 42.", "The answer is 64."])
async def test_an_answer_that_rests_on_a_wrong_sum_is_written_again_or_said_not_to_hold(again: str) -> None:
    ask = Scripted({"answer": "12 + 30 = 32, so the answer is indeed 64.", "answer: repair": again})
    text, _, _ = await perform(reasoning, make_run("What is 12 + 30?"), ask)
    assert ("does not hold" in text) == (again == "The answer is 64.")
    assert ("64" in text) == (again == "The answer is 64.")
