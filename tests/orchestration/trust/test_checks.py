"""What checks, judges and debates in a run's report teach."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration.messages import GuidedDecoding
from orchestration.patterns.specialists import code, reasoning
from orchestration.trust.checks import (
    FORM_MET_WEIGHT,
    RIGHT_SUMS_WEIGHT,
    WRONG_SUM_WEIGHT,
    check_of_form,
    checks_in,
)
from orchestration.trust.form import meets_form
from orchestration.trust.run_observations import verdicts_in, verified_in
from tests.orchestration.patterns.scripted import Scripted, make_run, perform
from tests.orchestration.patterns.test_step_repair import BROKEN, QUESTION, RIGHT, WRONG, Sandboxed, passing


@pytest.mark.parametrize(
    ("results", "script", "verified"),
    [
        ([passing(True, True)], {"answer": RIGHT}, 1.0),
        ([passing(False, True), passing(False, True)], {"answer": WRONG, "answer_repair": WRONG}, 0.0),
        ([passing(False, True), passing(True, True)], {"answer": WRONG, "answer_repair": RIGHT}, 1.0),
    ],
    ids=["passes", "fails", "is repaired"],
)
async def test_examples_that_a_program_passes_say_whether_the_answer_is_right(
    results: list[Any], script: dict[str, str], verified: float
) -> None:
    _, _, context = await perform(code, make_run(QUESTION), Sandboxed(results, **script))
    assert verified_in(context.report.sections) == verified
    (check,) = checks_in(context.report.sections)
    assert (check.model, check.kind, check.quality, check.is_of_answer) == ("m", "code", verified, True)


async def test_a_program_that_does_not_parse_was_wrong_and_one_that_was_not_tried_says_nothing() -> None:
    run = make_run("Write a function that doubles.")
    _, _, context = await perform(code, run, Scripted({"answer": BROKEN, "answer: repair": BROKEN}))
    assert verified_in(context.report.sections) == 0.0
    _, _, context = await perform(code, run, Scripted({"answer": RIGHT}))
    assert (verified_in(context.report.sections), checks_in(context.report.sections)) == (None, [])


@pytest.mark.parametrize(
    ("answer", "quality", "weight"),
    [
        ("12 × 3 = 36 and 36 + 4 = 40.", 1.0, RIGHT_SUMS_WEIGHT),
        ("12 × 3 = 35, so it is plenty.", 0.0, WRONG_SUM_WEIGHT),
        ("It is plenty.", None, None),
        ("In 2024 it was 7.", None, None),
    ],
)
async def test_sums_that_were_checked_teach_of_the_model_that_wrote_them(
    answer: str, quality: float | None, weight: float | None
) -> None:
    _, _, context = await perform(reasoning, make_run("How much?"), Scripted({"answer": answer}))
    found = [
        (check.model, check.kind, check.quality, check.weight) for check in checks_in(context.report.sections)
    ]
    assert found == ([("m", "reasoning", quality, weight)] if quality is not None else [])
    assert verified_in(context.report.sections) is None


@pytest.mark.parametrize(
    "report",
    [
        {"code": "yes", "sums": {"step": "a"}},
        {"code": [3, {"step": "a"}, {"step": 1, "model": "m", "parses": False}]},
        {"sums": [{"step": "a", "model": "", "wrong": 3}], "maestro": {"verdicts": [None, "good"]}},
        {"maestro": {"verdicts": [{"model": 3, "score": 9}]}, "debate": []},
    ],
)
def test_what_a_plug_in_put_into_its_report_teaches_and_breaks_nothing(
    report: dict[str, Any],
) -> None:
    assert (checks_in(report), verified_in(report), verdicts_in(report)) == ([], None, {})


def test_the_verdict_that_counts_is_that_on_what_the_answer_was_written_from() -> None:
    verdicts = [
        {"model": "judge", "score": 8.2, "accepted": True},
        {"model": "judge", "score": 1, "accepted": False},
    ]
    assert verdicts_in({"maestro": {"verdicts": verdicts}}) == {"judge": pytest.approx(0.8)}


@pytest.mark.parametrize(
    ("text", "schema", "met"),
    [
        ('{"a": 1}', {"type": "object", "required": ["a"]}, True),
        ('{"b": 1}', {"type": "object", "required": ["a"]}, False),
        ("[1]", {"type": "object"}, False),
        ("Sure! Here it is.", {}, False),
        ("true", {"type": "integer"}, False),
        ("null", {"type": ["string", "null"]}, True),
        ("3", {"$ref": "#/$defs/x"}, True),
        ("3", {"type": {"odd": 1}, "required": "a"}, True),
    ],
)
def test_a_form_is_met_or_not(text: str, schema: dict[str, Any], met: bool) -> None:
    guide = GuidedDecoding(json_schema=schema)
    assert meets_form(text, guide) is met
    check = check_of_form(text, "m", guide, "factual")
    assert check is not None
    assert (check.quality, check.weight) == ((1.0, FORM_MET_WEIGHT) if met else (0.0, 1.0))


def test_without_a_form_nothing_is_said_of_it() -> None:
    assert meets_form("x", None) is None
    assert meets_form("x", GuidedDecoding(regex="x+")) is None
    assert meets_form(" b ", GuidedDecoding(choice=("a", "b"))) is True
    assert check_of_form("{}", "", GuidedDecoding(json_schema={}), "code") is None
